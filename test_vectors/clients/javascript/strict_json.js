// A JSON reader that shows what JSON.parse hides: repeated keys, and whether a number was written as an integer.
// Objects become Maps, arrays arrays, numbers JsonNumbers. specs/lexicon.md asks for this ("Reading is strict").

export class JsonNumber {
  constructor(text) {
    this.text = text;
  }

  /** Whether it was written without fraction and exponent. */
  get isInteger() {
    return /^-?[0-9]+$/.test(this.text);
  }

  toNumber() {
    return Number(this.text);
  }
}

/** Return the value in UTF-8 JSON bytes; `onDuplicate()` makes the error for a repeated key. */
export function parseStrictJson(data, onDuplicate) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  let at = 0;

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
    return JSON.parse(token);
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
    skipSpace();
    if (text[at] === close) return void at++;
    for (;;) {
      readItem();
      skipSpace();
      if (text[at] === close) return void at++;
      expect(",");
    }
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
    if (result.size !== pairs.length) throw onDuplicate();
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
  return value;
}
