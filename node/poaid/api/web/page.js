// The page of a node. Everything shown comes from its JSON and its events; text is set as text, never as markup.

import { drawPlot } from "/static/plot.js";

const LISTED = 20; // blocks in the table
const HISTORY = 100; // blocks in the plots, and the most that one request gives
const POLL_MS = 5_000; // peers and rates change without an event
const RETRY_MS = 2_000; // after a stream that the browser gave up, and for a quiz that is not ready
const HOT_BITS = 8; // a loss from which a token is shown fully hot: the right token had a chance of 1 in 256
const LONG_BITS = 16; // a loss from which its bar is full
const Q16 = 65_536;
const TOTAL = 2n ** 256n;

const byId = (id) => document.getElementById(id);
const state = { status: null, blocks: [], selected: null, following: true, quizTimer: null, heard: null };

// Text ----------------------------------------------------------------------------------------------------------------

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const rough = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });
const quantity = (value) => (value < 1e6 ? rough : compact).format(value);
const bits = (q16) => `${(q16 / Q16).toFixed(2)} bits`;
const short = (hash) => `${hash.slice(0, 10)}…`;
const shortPeer = (id) => (id.length > 16 ? `${id.slice(0, 4)}…${id.slice(-8)}` : id);

function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5_970) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${number.format(Math.round(seconds / 86_400))} d`;
}

function age(ms) {
  const seconds = Math.max(0, (Date.now() - ms) / 1_000);
  return seconds < 10 ? `${Math.floor(seconds)} s` : duration(seconds);
}

function poai(wei, digits) {
  const value = BigInt(wei), whole = (value / 10n ** 18n).toLocaleString("en");
  const rest = (value % 10n ** 18n).toString().padStart(18, "0").slice(0, digits).replace(/0+$/, "");
  return rest ? `${whole}.${rest}` : whole;
}

/** A share of two 256-bit numbers, or a quotient, as an ordinary number. */
const divide = (a, b) => Number((a * 1_000_000n) / (b || 1n)) / 1e6;

// Elements ------------------------------------------------------------------------------------------------------------

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function setText(id, text, title) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (title !== undefined) element.title = title;
}

function setTime(element, ms) {
  element.dataset.ms = ms;
  element.dateTime = new Date(ms).toISOString();
  element.title = new Date(ms).toLocaleString();
  element.textContent = age(ms);
  return element;
}

function makeAddress(address) {
  const span = make("span", undefined, { title: address, class: "mono" }), dot = make("i", undefined, { class: "dot" });
  dot.style.setProperty("--hue", parseInt(address.slice(-6), 16) % 360);
  span.append(dot, `${address.slice(0, 8)}…`);
  if (address === state.status?.miner) span.classList.add("own");
  return span;
}

function fillFields(list, fields) {
  list.replaceChildren(...fields.flatMap(([name, value, mono]) => [
    make("dt", name), make("dd", value, mono ? { class: "mono" } : {})]));
}

// The node ------------------------------------------------------------------------------------------------------------

function showStatus(status) {
  state.status = status;
  const head = byId("tip-hash");
  document.title = `${status.height} · PoAI ${status.network}`;
  setText("network", status.network);
  setText("network-id", status.network_id.slice(0, 10), status.network_id);
  byId("activity").dataset.activity = status.activity;
  byId("activity").firstElementChild.textContent = status.activity;
  setText("reason", status.reason ?? "");
  setText("tip-height", number.format(status.height));
  byId("tip-height").dataset.height = status.height;
  head.textContent = short(status.head);
  head.title = head.dataset.hash = status.head;
  setTime(byId("tip-age"), status.head_time);
  byId("rate").replaceChildren(rough.format(status.quizzes_per_second), make("small", " quizzes/s"));
  const expected = divide(TOTAL, BigInt(status.target));
  byId("difficulty").replaceChildren(quantity(expected), make("small", " quizzes"));
  byId("difficulty").title = `target ${status.target}`;
  setText("peer-count", number.format(status.peer_count));
  byId("balance").replaceChildren(poai(status.balance, 4), make("small", " POAI"));
  byId("balance").title = `${poai(status.balance, 18)} POAI`;
  showSync(status.sync);
  setText("version", `${status.version}, profile ${status.profile}`);
  setText("model", status.model);
  setText("genesis", status.genesis);
  setText("miner", status.miner);
  setText("self", status.addresses.join("\n") || status.peer_id || "no network");
}

function showSync(sync) {
  byId("sync").hidden = sync === null;
  if (sync === null) return;
  byId("sync-bar").value = sync.height / Math.max(1, sync.goal);
  const left = sync.seconds_left === null ? "" : `, about ${duration(sync.seconds_left)} left`;
  setText("sync-text", `block ${number.format(sync.height)} of ${number.format(sync.goal)}, `
    + `${number.format(sync.blocks_left)} to replay${left}`);
}

function showPeers(peers) {
  byId("peers").hidden = peers.length === 0;
  byId("no-peers").hidden = peers.length > 0;
  const rows = peers.map((peer) => {
    const cells = [
      [shortPeer(peer.peer_id), "mono", null, peer.peer_id],
      [peer.address, "mono"],
      [peer.outbound ? "this node" : "the peer", "", "dialled by"],
      [peer.height === null ? "–" : number.format(peer.height), "number", "height"],
      [peer.proven ? "yes" : "not yet", peer.proven ? "yes" : "faint", "proven",
        "whether it has delivered a block that was replayed and true"],
      [peer.score.toFixed(1), "number", "score"],
      [duration(peer.connected), "number"],
    ];
    const row = make("tr", undefined, { role: "row", "data-peer": peer.peer_id });
    for (const [text, kind, label, title] of cells) {
      const cell = make("td", text, { role: "cell", class: kind });
      if (label) cell.dataset.label = label;
      if (title) cell.title = title;
      row.append(cell);
    }
    return row;
  });
  byId("peers").tBodies[0].replaceChildren(...rows);
}

// The chain -----------------------------------------------------------------------------------------------------------

function makeRow(block) {
  const row = make("tr", undefined, { role: "row", "data-hash": block.hash, "data-height": block.height });
  const height = make("td", undefined, { role: "cell", class: "number" });
  height.append(make("button", number.format(block.height), { type: "button" }));
  const miner = make("td", undefined, { role: "cell" });
  const when = make("td", undefined, { role: "cell", class: "number" });
  if (block.height > 0) miner.append(makeAddress(block.miner));
  when.append(setTime(make("time"), block.time));
  row.append(
    height,
    make("td", short(block.hash), { role: "cell", class: "mono", title: block.hash }),
    miner,
    make("td", block.height > 0 ? bits(block.loss) : "–", { role: "cell", class: "number" }),
    make("td", block.quiz ?? "genesis", { role: "cell", class: "mono faint", title: block.quiz ?? "" }),
    when,
  );
  row.addEventListener("click", () => select(block, false));
  return row;
}

function showBlocks(highlight) {
  const body = byId("blocks").tBodies[0], listed = state.blocks.slice(0, LISTED);
  const rows = new Map([...body.rows].map((row) => [row.dataset.hash, row]));
  const wanted = new Set(listed.map((block) => block.hash));
  for (const [hash, row] of rows) if (!wanted.has(hash)) row.remove();
  listed.forEach((block, index) => {
    let row = rows.get(block.hash);
    if (row === undefined) {
      row = makeRow(block);
      row.classList.toggle("new", highlight);
    }
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null); // a row in place keeps its focus
  });
  showPlots();
  if (state.following && listed.length > 0) select(listed[0], true);
  else markSelected();
}

function showPlots() {
  const chain = [...state.blocks].reverse(), mined = chain.filter((block) => block.height > 0);
  const spacing = state.status ? state.status.spacing / 1_000 : null;
  // No interval for block 1: genesis has a fixed time, long before anybody mined.
  const intervals = chain.slice(1).map((block, index) => ({
    height: block.height, value: Math.max(0, block.time - chain[index].time) / 1_000 })).filter((p) => p.height > 1);
  setText("plot-count", number.format(Math.max(mined.length, 1)));
  const seconds = (value) => duration(value), quizzes = (value) => `${quantity(value)} quizzes`;
  drawPlot(byId("plot-interval"), { title: "Time since the parent", kind: "bars", format: seconds, goal: spacing },
    intervals);
  drawPlot(byId("plot-difficulty"), { title: "Difficulty", kind: "steps", format: quizzes, goal: null },
    mined.map((block) => ({ height: block.height, value: divide(TOTAL, BigInt(block.target)) })));
  const inBits = (value) => `${value.toFixed(1)} bits`;
  drawPlot(byId("plot-loss"), { title: "Loss", kind: "dots", format: inBits, goal: null },
    mined.map((block) => ({ height: block.height, value: block.loss / Q16 })));
}

/** Ask for the list; while an answer is awaited, more calls make one more request after it. */
async function loadBlocks() {
  loadBlocks.again = true;
  if (loadBlocks.running) return;
  loadBlocks.running = true;
  try {
    while (loadBlocks.again) {
      loadBlocks.again = false;
      const highlight = state.blocks.length > 0;
      state.blocks = await getJson(`/blocks?count=${HISTORY}`);
      showBlocks(highlight);
    }
  } catch (error) {
    note(error); // the next poll sees that the head is not the list's, and asks again
  } finally {
    loadBlocks.running = false;
  }
}

function onHead(block) {
  const top = state.blocks[0];
  if (top?.hash === block.hash) return;
  if (top === undefined || top.hash !== block.parent || loadBlocks.running) {
    loadBlocks(); // the first list, a missed event, or a reorganisation
    return;
  }
  state.blocks = [block, ...state.blocks].slice(0, HISTORY);
  showBlocks(true);
}

// The quiz of the selected block --------------------------------------------------------------------------------------

function select(block, following) {
  state.following = following;
  byId("follow").setAttribute("aria-pressed", following);
  const changed = state.selected?.hash !== block.hash;
  state.selected = block;
  markSelected();
  if (!changed) return;
  showBlock(block);
  loadQuiz(block);
}

function markSelected() {
  for (const row of byId("blocks").tBodies[0].rows) {
    const selected = row.dataset.hash === state.selected?.hash;
    row.classList.toggle("selected", selected);
    if (selected) row.querySelector("button").setAttribute("aria-current", "true");
    else row.querySelector("button").removeAttribute("aria-current");
  }
}

function showBlock(block) {
  setText("block-height", number.format(block.height));
  const target = BigInt(block.target);
  const work = Number(block.work), isMined = block.l_hat !== null;
  const share = isMined ? `${(100 * divide(BigInt(block.l_hat), target)).toFixed(2)} %, and wins below 100 %` : "–";
  fillFields(byId("block-fields"), [ // in pairs where there is room: a hash, and a shorter one
    ["Hash", block.hash, true], ["Time", new Date(block.time).toISOString()],
    ["Parent", block.parent, true], ["Miner", block.miner, true],
    ["State root", block.state_root, true], ["Subsidy", `${poai(block.subsidy, 18)} POAI`],
    ["Trace digest", block.trace_digest, true], ["Loss", `${bits(block.loss)} (${number.format(block.loss)} in Q16)`],
    ["Target", block.target, true], ["Work", `${quantity(work)} multiplications expected`],
    ["l_hat", block.l_hat ?? "–", true], ["l_hat / target", share],
    ["Quiz", block.quiz ?? "–", true], ["Nonce", block.nonce, true],
    ["On the chain", block.on_chain ? "yes" : "no"],
    ["Replayed", block.replayed ? "yes" : "no, taken on trust (--assume-valid)"],
  ]);
}

function setNote(text) {
  byId("quiz-note").hidden = text === "";
  setText("quiz-note", text);
}

async function loadQuiz(block) {
  clearTimeout(state.quizTimer);
  if (block.height === 0) {
    showQuiz({ height: 0, hash: block.hash, name: "", text: "", answers: [], scored: [], loss: 0 });
    setNote("Genesis has no quiz: nobody mined it.");
    return;
  }
  byId("quiz").setAttribute("aria-busy", "true");
  try {
    const quiz = await getJson(`/quiz/${block.height}`);
    if (state.selected?.hash !== block.hash) return; // another block was selected while the model read this one
    if (quiz.hash === block.hash) showQuiz(quiz);
    else {
      setNote(`Block ${block.height} is no longer this one: the chain was reorganised.`);
      byId("quiz").setAttribute("aria-busy", "false");
    }
  } catch (error) {
    if (state.selected?.hash !== block.hash) return;
    setNote(`${error.message}.`);
    state.quizTimer = setTimeout(() => loadQuiz(block), RETRY_MS);
  }
}

function showQuiz(quiz) {
  if (quiz.hash !== state.selected?.hash) return;
  clearTimeout(state.quizTimer);
  byId("quiz").setAttribute("aria-busy", "false");
  byId("quiz").dataset.hash = quiz.hash;
  setNote("");
  setText("quiz-title", `Quiz of block ${number.format(quiz.height)}`);
  setText("quiz-name", quiz.name, quiz.name);
  byId("quiz-text").replaceChildren(...markAnswers(quiz));
  byId("quiz-answers").replaceChildren(...quiz.scored.map(makeToken));
  setText("quiz-loss", quiz.height > 0 ? bits(quiz.loss) : "–");
}

const heat = (q16) => Math.min(1, q16 / Q16 / HOT_BITS);
const isComputed = (token) => token.loss !== null;

/** The text with each scored token marked, behind the salt. Without `pieces` nobody knows where a token lies in it. */
function markAnswers(quiz) {
  if (quiz.pieces === undefined) return [quiz.text];
  const scored = new Map(quiz.scored.map((token) => [token.position, token]));
  const isText = (position) => quiz.pieces.slice(position).join("") === quiz.text;
  const salt = Math.max(0, quiz.pieces.findIndex((_, position) => isText(position)));
  const text = quiz.pieces.slice(salt).map((piece, index) => {
    const token = scored.get(salt + index);
    if (token === undefined) return piece;
    const mark = make("mark", piece === "\n" ? "↵\n" : piece, { class: token.answer ? "answer" : "fill" });
    mark.classList.toggle("pending", !isComputed(token));
    if (isComputed(token)) mark.style.setProperty("--heat", heat(token.loss));
    mark.title = isComputed(token) ? bits(token.loss) : "not computed";
    return mark;
  });
  return salt > 0 ? [make("span", quiz.pieces.slice(0, salt).join(""), { class: "salt" }), ...text] : text;
}

function makeToken(token) {
  const item = make("li", undefined, { class: token.answer ? "answer" : "fill", "data-position": token.position });
  const bar = make("span", undefined, { class: "bar", "aria-hidden": "true" }), filled = make("i");
  const visible = token.text.replaceAll(" ", "␣").replaceAll("\n", "↵");
  const chance = isComputed(token) ? 100 * 2 ** (-token.loss / Q16) : null;
  if (isComputed(token)) {
    filled.style.setProperty("--heat", heat(token.loss));
    filled.style.setProperty("--share", `${Math.min(100, (100 * token.loss) / Q16 / LONG_BITS)}%`);
    bar.append(filled);
  }
  item.append(
    make("code", visible, { title: `token ${token.token} at ${token.position}${token.answer ? "" : ", no answer"}` }),
    bar,
    make("span", isComputed(token) ? bits(token.loss) : "…", { class: "number" }),
    make("span", chance === null ? "" : chance < 0.1 ? "< 0.1 %" : `${chance.toFixed(1)} %`,
      { class: "number", title: "the chance that the model gave it" }),
  );
  return item;
}

// The connection ------------------------------------------------------------------------------------------------------

async function getJson(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error((await response.json()).error);
  return response.json();
}

function setConnection(name) {
  const element = byId("connection");
  element.dataset.state = name;
  const texts = {
    live: "live",
    connecting: "connecting",
    lost: state.heard === null ? "the node does not answer; trying again"
      : `the node does not answer since ${new Date(state.heard).toLocaleTimeString()}; trying again`,
  };
  if (element.lastElementChild.textContent !== texts[name]) element.lastElementChild.textContent = texts[name];
  document.body.classList.toggle("lost", name === "lost");
}

/** What is not in the page's hands: the stream's state tells the reader. */
function note(error) {
  if (!(error instanceof TypeError) && !(error instanceof SyntaxError)) setNote(`${error.message}.`);
}

function connect() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => {
    setConnection("live");
    poll();
  });
  const on = (name, handle) => events.addEventListener(name, (event) => {
    state.heard = Date.now();
    setConnection("live");
    handle(JSON.parse(event.data));
  });
  on("status", showStatus);
  on("head", onHead);
  on("quiz", showQuiz);
  events.addEventListener("error", () => {
    setConnection("lost");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS); // the answer was no stream: full, say
  });
}

async function poll() {
  if (document.hidden || byId("connection").dataset.state !== "live") return;
  try {
    const [status, peers] = await Promise.all([getJson("/status"), getJson("/peers")]);
    state.heard = Date.now();
    showStatus(status);
    showPeers(peers);
    if (status.head !== state.blocks[0]?.hash) loadBlocks();
  } catch (error) {
    note(error);
  }
}

byId("follow").addEventListener("click", () => {
  if (state.blocks.length > 0) select(state.blocks[0], true);
});
byId("block-details").open = matchMedia("(min-width: 68rem)").matches; // elsewhere it would push the plots away
document.addEventListener("visibilitychange", poll);
setInterval(poll, POLL_MS);
setInterval(() => {
  for (const element of document.querySelectorAll("time[data-ms]")) {
    const text = age(Number(element.dataset.ms));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1_000);
connect();
