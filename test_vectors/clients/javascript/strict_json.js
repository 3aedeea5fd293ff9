// A JSON reader that shows what JSON.parse hides: repeated keys, and how a number was written.
// Objects become Maps, arrays arrays, numbers JsonNumbers. specs/proof/lexicon.md asks for this ("Reading is strict").

const MAX_NESTING = 16;

export class JsonNumber {
  constructor(text) {
    this.text = text;
  }

  /** Whether it was written in at most ten digits, without sign, fraction and exponent. */
  get isPlain() {
    return /^[0-9]{1,10}$/.test(this.text);
  }

  toNumber() {
    return Number(this.text);
  }
}

/** Return {value, hasDuplicates} of UTF-8 JSON bytes; `hasDuplicates`: some object has a key twice. */
export function parseStrictJson(data) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  let at = 0;
  let depth = 0;
  let hasDuplicates = false;

  function fail() {
    throw new SyntaxError(`no JSON at character ${at}`);
  }

  function skipSpace() {
    while (at < text.length && " \t\n\r".includes(text[at])) at++;
  }

  function expect(token) {
    if (!text.startsWith(token, at)) fail();
    at += token.length;
  }

  function readString() {
    const match = /"(?:[^"\\\u0000-\u001f]|\\.)*"/sy;
    match.lastIndex = at;
    const [token] = match.exec(text) ?? fail();
    at += token.length;
    const value = JSON.parse(token);
    return value.isWellFormed() ? value : fail();
  }

  function readNumber() {
    const match = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
    match.lastIndex = at;
    const [token] = match.exec(text) ?? fail();
    at += token.length;
    return new JsonNumber(token);
  }

  /** Read `item, item, ...` up to the closing token. */
  function readItems(close, readItem) {
    if (++depth > MAX_NESTING) fail();
    skipSpace();
    for (let first = true; text[at] !== close; first = false) {
      if (!first) expect(",");
      readItem();
      skipSpace();
    }
    at++;
    depth--;
  }

  function readArray() {
    const items = [];
    expect("[");
    readItems("]", () => items.push(readValue()));
    return items;
  }

  function readObject() {
    const pairs = [];
    expect("{");
    readItems("}", () => {
      skipSpace();
      const key = readString();
      skipSpace();
      expect(":");
      pairs.push([key, readValue()]);
    });
    const result = new Map(pairs);
    hasDuplicates ||= result.size !== pairs.length;
    return result;
  }

  function readWord(word, value) {
    expect(word);
    return value;
  }

  function readValue() {
    skipSpace();
    switch (text[at]) {
      case "{":
        return readObject();
      case "[":
        return readArray();
      case '"':
        return readString();
      case "t":
        return readWord("true", true);
      case "f":
        return readWord("false", false);
      case "n":
        return readWord("null", null);
      default:
        return readNumber();
    }
  }

  const value = readValue();
  skipSpace();
  if (at !== text.length) fail();
  return { value, hasDuplicates };
}
