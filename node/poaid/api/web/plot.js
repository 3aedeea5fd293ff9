// Small plots as inline SVG: one series over height, as bars, steps or dots, with a line for what is intended.

const WIDTH = 320, HEIGHT = 120, LEFT = 4, RIGHT = 4, TOP = 8, BOTTOM = 6;
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function draw(kind, points, x, y, width) {
  if (kind === "bars") {
    const d = points.map((p) => `M${x(p.height)} ${y(0)}V${y(p.value)}`).join("");
    return make("path", { d, class: "bars", "stroke-width": Math.min(12, Math.max(1, width * 0.7)) });
  }
  if (kind === "steps") {
    const d = points.map((p) => `${x(p.height) - width / 2} ${y(p.value)}H${x(p.height) + width / 2}`).join("L");
    return make("path", { d: `M${d}`, class: "line" });
  }
  const d = points.map((p) => `M${x(p.height)} ${y(p.value)}h0`).join("");
  return make("path", { d, class: "dots" });
}

/** Draw into a figure.
 * @param figure the element; its content is replaced.
 * @param plot title, kind ("bars", "steps" or "dots"), format (number to text) and goal (a value or null).
 * @param points {height, value}, ascending by height, without gaps.
 */
export function drawPlot(figure, plot, points) {
  const caption = document.createElement("figcaption"), readout = document.createElement("output");
  const title = document.createElement("b");
  title.textContent = plot.title;
  caption.append(title, readout);
  const last = points.at(-1);
  if (last === undefined) {
    readout.textContent = "no blocks yet";
    figure.replaceChildren(caption);
    return;
  }
  const values = points.map((p) => p.value), highest = Math.max(...values, plot.goal ?? 0) * 1.05 || 1;
  const width = (WIDTH - LEFT - RIGHT) / Math.max(points.length, 12);
  const x = (height) => WIDTH - RIGHT - (last.height - height + 0.5) * width;
  const y = (value) => HEIGHT - BOTTOM - (value / highest) * (HEIGHT - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const range = `${plot.format(Math.min(...values))} to ${plot.format(Math.max(...values))}`;
  svg.setAttribute("aria-label", `${plot.title} of blocks ${points[0].height} to ${last.height}: ${range}`);
  svg.append(make("path", { d: `M0 ${y(0)}H${WIDTH}`, class: "axis" }));
  if (plot.goal) svg.append(make("path", { d: `M0 ${y(plot.goal)}H${WIDTH}`, class: "goal" }));
  const cursor = make("path", { d: "", class: "cursor" });
  svg.append(cursor, draw(plot.kind, points, x, y, width));

  const show = (point, pointed) => {
    readout.textContent = `${pointed ? `block ${point.height}: ` : ""}${plot.format(point.value)}`;
    cursor.setAttribute("d", pointed ? `M${x(point.height)} ${TOP}V${HEIGHT - BOTTOM}` : "");
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * WIDTH;
    const back = Math.round((WIDTH - RIGHT - at) / width - 0.5);
    show(points[Math.min(points.length - 1, Math.max(0, points.length - 1 - back))], true);
  });
  svg.addEventListener("pointerleave", () => show(last, false));
  show(last, false);
  const scale = document.createElement("small");
  const goal = plot.goal ? `, dashed: intended ${plot.format(plot.goal)}` : "";
  scale.textContent = `${range}${goal}`;
  figure.replaceChildren(caption, svg, scale);
}
