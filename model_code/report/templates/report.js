"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const words = (name) => name.replaceAll("_", " ");
  const unique = (values) => [...new Set(values)];
  const COUNT = data.regions.ids.length;
  const MISSING = 65535;

  // --- building elements: text is always set as text, never as markup ---------------------------

  function make(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") Object.entries(value).forEach(([name, run]) => node.addEventListener(name, run));
      else if (key === "css") Object.assign(node.style, value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  }
  const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  function fillSelect(select, options, chosen) {
    select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    if (options.some(([value]) => value === chosen)) select.value = chosen;
    select.disabled = options.length === 0;
    return select.value;
  }

  function segments(host, options, chosen, pick) {
    host.replaceChildren(
      ...options.map(([value, label, off]) =>
        el("button", {
          type: "button", "data-value": value, "aria-pressed": String(value === chosen),
          disabled: Boolean(off), title: off || null,
          on: { click: () => { segments(host, options, value, pick); pick(value); host.querySelector("[aria-pressed=true]").focus(); } },
        }, label)),
    );
  }

  // --- numbers -----------------------------------------------------------------------------------

  function words16(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Uint16Array(bytes.buffer);
  }
  function words32(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Uint32Array(bytes.buffer);
  }
  /** Numbers as packed by the page's maker; NaN is missing. Logarithms stay logarithms. */
  function unpack(packed) {
    return Float64Array.from(words16(packed.q), (q) => (q === MISSING ? NaN : packed.low + packed.step * q));
  }
  const memo = new Map();
  function unpacked(packed) {
    if (!memo.has(packed)) memo.set(packed, unpack(packed));
    return memo.get(packed);
  }

  const minus = (text) => text.replace("-", "−");
  function format(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const digits = Math.abs(value) >= 1000 ? 4 : 3;
    return minus((value + 0).toLocaleString("en-US", { maximumSignificantDigits: digits }));
  }
  const DECIMALS = COUNT >= 2000 ? 3 : 2;
  function figure(value) {
    if (value === null || value === undefined) return "–";
    return minus(Math.abs(value) < 10 ? value.toFixed(DECIMALS) : value.toLocaleString("en-US", { maximumSignificantDigits: 4 }));
  }
  const signed = (value) => (value > 0 ? "+" : "") + figure(value);

  function quantiles(values, shares) {
    const found = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
    return shares.map((share) => (found.length ? found[Math.round(share * (found.length - 1))] : NaN));
  }
  function niceTicks(low, high, most) {
    const rough = (high - low) / Math.max(most - 1, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) ticks.push(k * step + 0);
    return ticks;
  }
  /** Ticks as [position, value]: positions on the transformed scale, values on the original one. */
  function scaleTicks(low, high, log, most) {
    if (!log) return niceTicks(low, high, most).map((v) => [v, v]);
    const [from, to] = [Math.expm1(low), Math.expm1(high)];
    let values = [0];
    for (let power = 1; power <= to; power *= 10) values.push(power, 2 * power, 5 * power);
    values = values.filter((v) => v >= from && v <= to);
    if (values.length < 3) values = niceTicks(from, to, most);
    const every = Math.ceil(values.length / most);
    return values.filter((_, k) => (values.length - 1 - k) % every === 0).map((v) => [Math.log1p(v), v]);
  }

  // --- colours -----------------------------------------------------------------------------------

  function ramp(stops) {
    const parts = stops.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, k) => {
      const at = (k / 255) * (parts.length - 1);
      const i = Math.min(Math.floor(at), parts.length - 2);
      const mix = parts[i].map((v, j) => Math.round(v + (parts[i + 1][j] - v) * (at - i)));
      return `rgb(${mix.join(",")})`;
    });
  }
  const SEQUENTIAL = ramp(data.palette.sequential);
  const CLASSES = data.palette.qualitative;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const diverging = () => ramp(dark.matches ? data.palette.diverging_dark : data.palette.diverging);
  const shade = (colours, low, high) => (value) =>
    Number.isFinite(value)
      ? colours[Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low || 1))))]
      : null;
  const classShade = (code) => (Number.isFinite(code) ? CLASSES[code % CLASSES.length] : null);

  function missingEntry(label) {
    return el("li", {}, el("i", { class: "hatch" }), label);
  }
  function rampLegend(host, title, colours, low, high, ticks, missing) {
    const gradient = [0, 32, 64, 96, 128, 159, 191, 223, 255].map((k) => colours[k]).join(",");
    const place = (v) => `${(100 * (v - low)) / (high - low || 1)}%`;
    host.replaceChildren(
      el("div", { class: "ramp" },
        el("div", {}, title),
        el("div", { class: "ramp-bar", css: { background: `linear-gradient(90deg,${gradient})` } }),
        el("div", { class: "ramp-ticks" }, ticks.map(([at, label]) => el("span", { css: { left: place(at) } }, label)))),
      missing ? el("ul", { class: "swatches" }, missingEntry(missing)) : null);
  }
  function classLegend(host, entries, missing) {
    host.replaceChildren(
      el("ul", { class: "swatches" },
        entries.map(([code, label]) => el("li", {}, el("i", { css: { background: classShade(code) } }), label)),
        missing ? missingEntry(missing) : null));
  }

  // --- regions -----------------------------------------------------------------------------------

  const shapes = (() => {
    const { regions } = data;
    const [x, y, lengths, owner] = [words16(regions.x), words16(regions.y), words32(regions.lengths), words32(regions.owner)];
    const paths = Array.from({ length: COUNT }, () => new Path2D());
    const box = new Float64Array(4 * COUNT);
    for (let i = 0; i < COUNT; i += 1) box.set([Infinity, Infinity, -Infinity, -Infinity], 4 * i);
    let at = 0;
    lengths.forEach((length, ring) => {
      const [path, b] = [paths[owner[ring]], 4 * owner[ring]];
      for (let k = 0; k < length; k += 1, at += 1) {
        if (k === 0) path.moveTo(x[at], y[at]);
        else path.lineTo(x[at], y[at]);
        box[b] = Math.min(box[b], x[at]);
        box[b + 1] = Math.min(box[b + 1], y[at]);
        box[b + 2] = Math.max(box[b + 2], x[at]);
        box[b + 3] = Math.max(box[b + 3], y[at]);
      }
      path.closePath();
    });
    return { paths, box, cx: words16(regions.cx), cy: words16(regions.cy) };
  })();
  const probe = document.createElement("canvas").getContext("2d");
  function regionAt(x, y) {
    const { box, paths } = shapes;
    for (let i = 0; i < COUNT; i += 1) {
      const b = 4 * i;
      if (x >= box[b] && y >= box[b + 1] && x <= box[b + 2] && y <= box[b + 3] && probe.isPointInPath(paths[i], x, y, "evenodd")) return i;
    }
    return -1;
  }

  // --- views: canvases that share what is pointed at ----------------------------------------------

  const views = [];
  let hot = -1;
  const tip = byId("tip");

  function point(index, view, clientX, clientY) {
    hot = index;
    views.forEach((other) => other.mark());
    tip.hidden = index < 0;
    if (index < 0) return;
    const [title, ...lines] = view.describe(index);
    tip.replaceChildren(el("b", {}, title), ...lines.map((line) => el("div", {}, line)));
    const room = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(clientX + 14, innerWidth - room.width - 8))}px`;
    tip.style.top = `${clientY + 16 + room.height > innerHeight ? clientY - room.height - 12 : clientY + 16}px`;
  }

  /** A canvas with a layer for what is pointed at; regions are reached by pointer and arrow keys. */
  class View {
    constructor(host, label) {
      this.host = host;
      this.canvas = el("canvas", { tabindex: 0, role: "application", "aria-roledescription": "map of regions", "aria-label": label });
      this.over = el("canvas", { class: "over", "aria-hidden": "true" });
      host.replaceChildren(this.canvas, this.over);
      const at = (event) => {
        const box = this.canvas.getBoundingClientRect();
        point(this.find(event.clientX - box.left, event.clientY - box.top), this, event.clientX, event.clientY);
      };
      this.canvas.addEventListener("pointermove", at);
      this.canvas.addEventListener("pointerdown", at);
      this.canvas.addEventListener("pointerleave", () => point(-1));
      this.canvas.addEventListener("blur", () => point(-1));
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      let width = 0;
      new ResizeObserver(() => {
        if (host.clientWidth && host.clientWidth !== width) { width = host.clientWidth; this.draw(); }
      }).observe(host);
      views.push(this);
    }
    size(width, height) {
      const sharp = window.devicePixelRatio || 1;
      for (const canvas of [this.canvas, this.over]) {
        canvas.width = Math.round(width * sharp);
        canvas.height = Math.round(height * sharp);
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
      }
      const pens = [this.canvas, this.over].map((canvas) => canvas.getContext("2d"));
      pens.forEach((pen) => pen.setTransform(sharp, 0, 0, sharp, 0, 0));
      [this.pen, this.overPen] = pens;
      [this.width, this.height] = [width, height];
    }
    key(event) {
      if (event.key === "Escape") { point(-1); return; }
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      let best = hot;
      let least = Infinity;
      const [fromX, fromY] = hot < 0 ? [NaN, NaN] : this.place(hot);
      for (let i = 0; i < COUNT; i += 1) {
        const [x, y] = this.place(i);
        const along = (x - fromX) * step[0] + (y - fromY) * step[1];
        const across = Math.abs((x - fromX) * step[1]) + Math.abs((y - fromY) * step[0]);
        if (hot < 0 && Number.isFinite(x)) { best = i; break; }
        if (along > 0.5 && along + 3 * across < least) { least = along + 3 * across; best = i; }
      }
      if (best < 0) return;
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = this.place(best);
      point(best, this, box.left + x, box.top + y);
    }
    mark() {
      if (!this.overPen) return;
      this.overPen.clearRect(0, 0, this.width, this.height);
      if (hot >= 0) this.ring(this.overPen, hot);
    }
  }

  class RegionMap extends View {
    constructor(host, label, describe) {
      super(host, label);
      this.describe = describe;
      this.fills = [];
    }
    paint(fills) { this.fills = fills; this.draw(); }
    draw() {
      const room = this.host.clientWidth;
      if (!room || !this.fills.length) return;
      const { regions } = data;
      const most = Math.max(260, Math.min(620, room * 1.25));
      this.scale = Math.min((room - 4) / regions.width, most / regions.height);
      this.size(room, Math.round(regions.height * this.scale) + 30);
      const { pen, scale } = this;
      const cell = Math.sqrt((regions.width * regions.height) / COUNT) * scale;
      pen.save();
      pen.translate(2, 2);
      pen.scale(scale, scale);
      const hatch = this.hatch();
      pen.lineWidth = (cell > 9 ? Math.min(1, cell / 24) : 0.5) / scale;
      const gap = css("--page");
      shapes.paths.forEach((path, i) => {
        const fill = this.fills[i];
        pen.fillStyle = fill || hatch;
        pen.fill(path, "evenodd");
        if (COUNT > 20000) return;
        pen.strokeStyle = cell > 9 ? gap : fill || css("--missing");
        pen.stroke(path);
      });
      pen.restore();
      this.bar();
      this.mark();
    }
    hatch() {
      const tile = el("canvas", { width: 12, height: 12 });
      const pen = tile.getContext("2d");
      pen.fillStyle = css("--missing");
      pen.fillRect(0, 0, 12, 12);
      pen.strokeStyle = css("--missing-line");
      pen.lineWidth = 1.4;
      pen.beginPath();
      for (const k of [-12, 0, 12]) { pen.moveTo(k - 3, 15); pen.lineTo(k + 15, -3); }
      pen.stroke();
      const pattern = this.pen.createPattern(tile, "repeat");
      const sharp = window.devicePixelRatio || 1;
      pattern.setTransform(new DOMMatrix().scale(0.5 / this.scale * (sharp > 1 ? 1 : 1.2)));
      return pattern;
    }
    bar() {
      const { pen, scale } = this;
      const metres = data.regions.unit_m / scale;
      const rough = (this.width / 4) * metres;
      const power = 10 ** Math.floor(Math.log10(rough));
      const length = power * [5, 2, 1].find((s) => s * power <= rough);
      const y = this.height - 12;
      pen.fillStyle = css("--ink");
      pen.fillRect(2, y, length / metres, 2);
      pen.fillStyle = css("--soft");
      pen.font = "12px system-ui, sans-serif";
      pen.textBaseline = "middle";
      pen.fillText(length >= 1000 ? `${length / 1000} km` : `${length} m`, length / metres + 9, y + 1);
    }
    find(x, y) { return regionAt((x - 2) / this.scale, (y - 2) / this.scale); }
    place(i) { return [shapes.cx[i] * this.scale + 2, shapes.cy[i] * this.scale + 2]; }
    ring(pen, i) {
      pen.save();
      pen.translate(2, 2);
      pen.scale(this.scale, this.scale);
      pen.lineJoin = "round";
      for (const [colour, width] of [[css("--page"), 5], [css("--ink"), 2.2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = width / this.scale;
        pen.stroke(shapes.paths[i]);
      }
      pen.restore();
    }
  }

  /** Points of regions; `frame` of { x, y, colours, ticks, labels, diagonal }. */
  class Scatter extends View {
    constructor(host, label, describe) {
      super(host, label);
      this.describe = describe;
    }
    paint(frame) { this.frame = frame; this.draw(); }
    draw() {
      const room = this.host.clientWidth;
      if (!room || !this.frame) return;
      const { x, y, colours, xTicks, yTicks, range, labels, diagonal } = this.frame;
      const side = Math.min(room, 520);
      this.size(room, Math.round(side * (diagonal ? 0.8 : 0.9)));
      const { pen, height } = this;
      const margin = labels ? { left: 58, bottom: 44, right: 8, top: 8 } : { left: 6, bottom: 6, right: 6, top: 6 };
      const [x0, x1, y0, y1] = range;
      const plot = { width: (labels ? side : room) - margin.left - margin.right, height: height - margin.top - margin.bottom };
      this.toX = (v) => margin.left + ((v - x0) / (x1 - x0 || 1)) * plot.width;
      this.toY = (v) => margin.top + plot.height - ((v - y0) / (y1 - y0 || 1)) * plot.height;
      pen.font = "12px system-ui, sans-serif";
      pen.strokeStyle = css("--line");
      pen.fillStyle = css("--soft");
      pen.lineWidth = 1;
      pen.strokeRect(margin.left - 0.5, margin.top + 0.5, plot.width, plot.height);
      if (labels) {
        pen.textAlign = "center";
        xTicks.forEach(([at, label]) => {
          const half = pen.measureText(label).width / 2;
          pen.fillText(label, Math.min(this.toX(at), room - half - 1), height - margin.bottom + 17);
        });
        pen.fillText(labels[0], margin.left + plot.width / 2, height - 6);
        pen.textAlign = "right";
        pen.textBaseline = "middle";
        yTicks.forEach(([at, label]) => pen.fillText(label, margin.left - 7, this.toY(at)));
        pen.save();
        pen.translate(10, margin.top + plot.height / 2);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "center";
        pen.fillText(labels[1], 0, 0);
        pen.restore();
      }
      if (diagonal) {
        const [from, to] = [Math.max(x0, y0), Math.min(x1, y1)];
        pen.strokeStyle = css("--soft");
        pen.beginPath();
        pen.moveTo(this.toX(from), this.toY(from));
        pen.lineTo(this.toX(to), this.toY(to));
        pen.stroke();
      }
      const radius = Math.max(1.2, Math.min(4, 90 / Math.sqrt(COUNT)));
      pen.globalAlpha = diagonal ? 0.65 : 0.85;
      for (let i = 0; i < COUNT; i += 1) {
        if (!Number.isFinite(x[i]) || !Number.isFinite(y[i])) continue;
        pen.fillStyle = colours ? colours[i] || css("--missing-line") : css("--accent");
        pen.beginPath();
        pen.arc(this.toX(x[i]), this.toY(y[i]), radius, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
      this.radius = radius;
      this.mark();
    }
    place(i) { return [this.toX(this.frame.x[i]), this.toY(this.frame.y[i])]; }
    find(px, py) {
      if (!this.frame) return -1;
      let best = -1;
      let least = 14 * 14;
      for (let i = 0; i < COUNT; i += 1) {
        const [x, y] = this.place(i);
        const far = (x - px) ** 2 + (y - py) ** 2;
        if (far < least) { least = far; best = i; }
      }
      return best;
    }
    ring(pen, i) {
      if (!this.frame) return;
      const [x, y] = this.place(i);
      if (!Number.isFinite(x) || !Number.isFinite(y)) return;
      for (const [colour, width] of [[css("--page"), 5], [css("--ink"), 2.2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = width;
        pen.beginPath();
        pen.arc(x, y, this.radius + 3, 0, 7);
        pen.stroke();
      }
    }
  }

  const padded = (values, share = 0.04) => {
    const found = Array.from(values).filter(Number.isFinite);
    const low = found.reduce((a, b) => Math.min(a, b), Infinity);
    const high = found.reduce((a, b) => Math.max(a, b), -Infinity);
    const pad = share * (high - low || 1);
    return [low - pad, high + pad];
  };

  // --- city --------------------------------------------------------------------------------------

  const name = (i) => data.regions.ids[i];
  const PARTS = ["train", "validate", "test"];
  const PART_COLOURS = ["--part-train", "--part-val", "--part-test"];
  let partition = "plain";
  const partitionMap = new RegionMap(byId("partition-map"), "Map of the regions", (i) => {
    const area = `${format(data.regions.area_km2[i])} km²`;
    if (partition === "plain") return [name(i), area];
    return [name(i), area, PARTS[unpacked(data.parts[partition])[i]] || "in no part"];
  });

  function paintPartition() {
    const legend = byId("partition-legend");
    if (partition === "plain") {
      legend.replaceChildren();
      partitionMap.paint(Array(COUNT).fill(css("--region")));
      return;
    }
    const codes = unpacked(data.parts[partition]);
    partitionMap.paint(Array.from(codes, (c) => (Number.isFinite(c) ? css(PART_COLOURS[c]) : null)));
    legend.replaceChildren(el("ul", { class: "swatches" },
      PARTS.map((label, c) => el("li", {}, el("i", { css: { background: css(PART_COLOURS[c]) } }), `${label}: ${codes.filter((v) => v === c).length.toLocaleString("en-US")}`)),
      codes.some((v) => !Number.isFinite(v)) ? missingEntry("in no part") : null));
  }

  function wirePartition() {
    const kinds = Object.keys(data.parts);
    segments(byId("partition-kind"), [["plain", "regions"], ...kinds.map((k) => [k, `${k} split`])], partition, (value) => { partition = value; paintPartition(); });
  }

  // --- indicators on the map -----------------------------------------------------------------------

  const METRICS = { r2: "R²", rmse: "RMSE", mae: "MAE", mape: "MAPE", accuracy: "accuracy", macro_f1: "macro F1", macro_recall: "macro recall" };
  const HIGHER = new Set(["r2", "accuracy", "macro_f1", "macro_recall"]);
  function metricOf(key) {
    const cut = key.lastIndexOf("_");
    return { metric: key.slice(0, cut), scale: key.slice(cut + 1) };
  }
  function figureName(key) {
    const { metric, scale } = metricOf(key);
    return (METRICS[metric] || metric) + (scale === "class" ? "" : `, ${scale} scale`);
  }
  const splits = unique([...data.fits, ...data.board].map((row) => row.split));
  const tasks = new Map(data.tasks.map((task) => [task.name, task]));
  const onMap = { task: data.tasks[0].name, method: null, split: splits.includes("spatial") ? "spatial" : splits[0] };

  function current() {
    const task = tasks.get(onMap.task);
    const fit = data.fits.find((f) => f.task === onMap.task && f.method === onMap.method && f.split === onMap.split);
    return { task, fit, truth: unpacked(data.truth[task.name]), predicted: fit && unpacked(fit.value), error: fit && unpacked(fit.error) };
  }
  const withUnit = (text, task) => (task.unit ? `${text} ${task.unit}` : text);
  function valueText(value, task) {
    if (!Number.isFinite(value)) return "no data";
    if (task.kind === "classification") return task.classes[value] ?? `class ${value}`;
    return withUnit(format(task.log ? Math.expm1(value) : value), task);
  }
  function describe(i) {
    const { task, truth, predicted, error } = current();
    const lines = [name(i), `true: ${valueText(truth[i], task)}`];
    if (!predicted) return lines;
    if (!Number.isFinite(predicted[i])) return [...lines, "predicted: not in a test part"];
    lines.push(`predicted: ${valueText(predicted[i], task)}`);
    lines.push(task.kind === "classification" ? `wrong in ${Math.round(100 * error[i])} % of fits` : `error: ${signed(error[i])}${task.log ? " (log1p)" : ""}`);
    return lines;
  }
  const trueMap = new RegionMap(byId("true-map"), "Map of true values", describe);
  const predictedMap = new RegionMap(byId("predicted-map"), "Map of predicted values", describe);
  const errorMap = new RegionMap(byId("error-map"), "Map of errors", describe);
  let scatter = null;

  function paintMaps() {
    const { task, fit, truth, predicted, error } = current();
    const none = new Float64Array(COUNT).fill(NaN);
    const isClass = task.kind === "classification";
    let colour = classShade;
    if (isClass) {
      classLegend(byId("value-legend"), task.classes.map((label, code) => [code, label]), "no data, or in no test part");
    } else {
      const [low, high] = quantiles(truth, [0.01, 0.99]);
      colour = shade(SEQUENTIAL, low, high);
      const ticks = scaleTicks(low, high, task.log, 6).map(([at, v]) => [at, format(v)]);
      const title = [task.unit || "value", task.kind === "hourly" ? "mean of 24 hours" : "", task.log ? "colours even in log1p" : ""];
      rampLegend(byId("value-legend"), title.filter(Boolean).join(", "), SEQUENTIAL, low, high, ticks, "no data, or in no test part");
    }
    trueMap.paint(Array.from(truth, colour));
    predictedMap.paint(Array.from(predicted || none, colour));
    if (isClass) {
      errorMap.paint(Array.from(error || none, shade(SEQUENTIAL, 0, 1)));
      rampLegend(byId("error-legend"), "share of fits that were wrong", SEQUENTIAL, 0, 1, [[0, "0"], [0.5, "0.5"], [1, "1"]], "in no test part");
    } else {
      const reach = quantiles(Array.from(error || none, Math.abs), [0.98])[0] || 1;
      const colours = diverging();
      errorMap.paint(Array.from(error || none, shade(colours, -reach, reach)));
      const ticks = [[-reach, `${figure(-reach)} too low`], [0, "0"], [reach, `too high ${signed(reach)}`]];
      rampLegend(byId("error-legend"), `predicted − true${task.log ? ", log1p scale" : task.unit ? `, ${task.unit}` : ""}`, colours, -reach, reach, ticks, "in no test part");
    }
    byId("error-title").textContent = isClass ? "Wrong" : "Error";
    paintFinding(task, fit);
    paintScatter(task, fit, truth, predicted);
    paintHours(task, fit);
    paintWorst(task, fit, truth, predicted, error);
  }

  /** The regions that a method misses most; pointing at a row points at the region. */
  function paintWorst(task, fit, truth, predicted, error) {
    const isClass = task.kind === "classification";
    byId("worst-title").textContent = isClass ? "Most often wrong" : "Largest errors";
    const order = fit ? Array.from(error, (v, i) => [Math.abs(v), i]).filter(([v]) => v > 0).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 8) : [];
    if (!order.length) { byId("worst").replaceChildren(el("p", { class: "empty" }, "Nothing to show.")); return; }
    const bare = { ...task, unit: "" };
    const show = (i, event) => {
      const box = event.currentTarget.getBoundingClientRect();
      point(i, errorMap, box.left, box.bottom);
    };
    byId("worst").replaceChildren(el("table", { class: "worst" },
      el("thead", {}, el("tr", {}, ["Region", "True", "Predicted", isClass ? "Wrong" : "Error"].map((label, k) => el("th", { scope: "col", class: k ? "num" : null }, label)))),
      el("tbody", {}, order.map(([, i]) => el("tr", {
        tabindex: 0,
        on: { pointerenter: (event) => show(i, event), pointerleave: () => point(-1), focus: (event) => show(i, event), blur: () => point(-1) },
      },
      el("th", { scope: "row" }, name(i)),
      [valueText(truth[i], bare), valueText(predicted[i], bare), isClass ? `${Math.round(100 * error[i])} %` : signed(error[i])].map((text) => el("td", { class: "num" }, text)))))));
  }

  function paintFinding(task, fit) {
    const host = byId("map-finding");
    if (!fit) { host.replaceChildren("No method predicts this indicator on this split."); return; }
    const row = data.board.find((r) => r.task === task.name && r.method === fit.method && r.split === fit.split);
    const found = row && row.figures[row.headline];
    const share = fit.tested === COUNT ? "All regions were" : `${fit.tested.toLocaleString("en-US")} of ${COUNT.toLocaleString("en-US")} regions were`;
    host.replaceChildren(
      ...(found ? [el("strong", {}, `${METRICS[metricOf(row.headline).metric]} ${figure(found.mean)}${found.sd === null ? "" : ` ± ${figure(found.sd)}`}`), ` over ${found.runs.length} ${found.runs.length === 1 ? "fit" : "fits"}. `] : []),
      `${share} in a test part of the ${fit.split} split; ${task.kind === "classification" ? "the map shows what most fits chose" : "predictions are means over the fits"}.`,
      row && row.contained ? " The target is contained in an input of this method." : "");
  }

  function paintScatter(task, fit, truth, predicted) {
    const host = byId("scatter");
    const isClass = task.kind === "classification";
    byId("scatter-title").textContent = isClass ? "Confusion: rows true, columns predicted" : "Predicted against true";
    if (isClass || !fit) {
      if (scatter) { views.splice(views.indexOf(scatter), 1); scatter = null; }
      host.replaceChildren(fit ? confusion(task, fit.confusion) : el("p", { class: "empty" }, "Nothing to show."));
      return;
    }
    if (!scatter) scatter = new Scatter(host, "Predicted against true values", describe);
    const both = Array.from(truth, (v, i) => (Number.isFinite(predicted[i]) ? [v, predicted[i]] : [NaN, NaN]));
    const [low, high] = padded(both.flat());
    const ticks = scaleTicks(low, high, task.log, 6).map(([at, v]) => [at, format(v)]);
    scatter.paint({
      x: both.map((p) => p[0]), y: both.map((p) => p[1]), range: [low, high, low, high], diagonal: true,
      xTicks: ticks, yTicks: ticks, labels: [withUnit("true", { unit: task.unit && `(${task.unit})` }), "predicted"],
    });
  }

  function confusion(task, matrix) {
    const labels = matrix.map((_, code) => task.classes[code] ?? `class ${code}`);
    return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Confusion matrix" },
      el("table", { class: "confusion" },
        el("thead", {}, el("tr", {}, el("th", {}), labels.map((label) => el("th", { scope: "col" }, label)))),
        el("tbody", {}, matrix.map((row, i) => {
          const total = row.reduce((a, b) => a + b, 0) || 1;
          return el("tr", {}, el("th", { scope: "row" }, labels[i]), row.map((count) =>
            el("td", { css: { background: `color-mix(in srgb, var(--accent) ${Math.round((55 * count) / total)}%, transparent)` } }, String(count))));
        }))));
  }

  function paintHours(task, fit) {
    const box = byId("hours-box");
    box.hidden = !(fit && fit.hours);
    if (box.hidden) return;
    const [width, height, left, bottom] = [480, 260, 52, 42];
    const top = Math.max(...fit.hours.true, ...fit.hours.predicted) * 1.06 || 1;
    const toX = (h) => left + (h / 23) * (width - left - 10);
    const toY = (v) => 8 + (1 - v / top) * (height - bottom - 8);
    const line = (values, colour, dash) => svg("polyline", {
      points: values.map((v, h) => (v === null ? null : `${toX(h)},${toY(v)}`)).filter(Boolean).join(" "),
      fill: "none", stroke: colour, "stroke-width": 2.2, "stroke-dasharray": dash,
    });
    byId("hours").replaceChildren(
      svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Mean of the test regions by hour, true and predicted" },
        niceTicks(0, top, 5).map((v) => [
          svg("line", { x1: left, x2: width - 10, y1: toY(v), y2: toY(v), stroke: css("--line") }),
          svg("text", { x: left - 8, y: toY(v) + 4, "text-anchor": "end" }, format(v))]),
        [0, 6, 12, 18, 23].map((h) => svg("text", { x: toX(h), y: height - bottom + 20, "text-anchor": "middle" }, `${h}h`)),
        line(fit.hours.true, css("--soft")), line(fit.hours.predicted, css("--accent"), "6 4")),
      el("div", { class: "legend" }, `Mean of the test regions${task.unit ? `, ${task.unit}` : ""}. Solid grey: true. Dashed: predicted.`));
  }

  function wireMaps() {
    const methodsOf = () => unique(data.fits.filter((f) => f.task === onMap.task).map((f) => f.method));
    const best = () => {
      const ranked = data.board.filter((r) => r.task === onMap.task && r.split === onMap.split && r.rank === 1);
      return ranked.length ? ranked[0].method : null;
    };
    const chooseMethod = () => {
      const methods = methodsOf();
      const wanted = methods.includes(onMap.method) ? onMap.method : best() || methods[0];
      onMap.method = fillSelect(byId("map-method"), methods.map((m) => [m, m]), wanted);
    };
    fillSelect(byId("map-task"), data.tasks.map((t) => [t.name, words(t.name)]), onMap.task);
    chooseMethod();
    byId("map-task").addEventListener("change", (event) => { onMap.task = event.target.value; chooseMethod(); paintMaps(); });
    byId("map-method").addEventListener("change", (event) => { onMap.method = event.target.value; paintMaps(); });
    segments(byId("map-split"), splits.map((s) => [s, `${s} split`]), onMap.split, (value) => { onMap.split = value; paintMaps(); });
  }

  // --- leaderboard ---------------------------------------------------------------------------------

  const board = { split: splits.includes("spatial") ? "spatial" : splits[0], metric: "headline", sort: "rank", down: false, task: null, method: null };
  const keyOf = (row) => (board.metric === "headline" ? row.headline : board.metric);
  const rowsNow = () => data.board.filter((r) => r.split === board.split);

  function boardTasks() {
    const found = new Set(rowsNow().filter((r) => r.figures[keyOf(r)]).map((r) => r.task));
    return data.tasks.filter((t) => found.has(t.name)).map((t) => t.name);
  }
  function higherIsBetter() {
    return board.metric === "headline" || HIGHER.has(metricOf(board.metric).metric);
  }

  function paintBoard() {
    const rows = rowsNow();
    const columns = boardTasks();
    const cell = new Map(rows.map((r) => [`${r.method}\n${r.task}`, r]));
    const value = (method, task) => {
      const row = cell.get(`${method}\n${task}`);
      const found = row && row.figures[keyOf(row)];
      return found ? found.mean : null;
    };
    const ranks = new Map(unique(rows.map((r) => r.method)).map((method) => {
      const own = rows.filter((r) => r.method === method && r.rank !== null).map((r) => r.rank);
      return [method, own.length ? own.reduce((a, b) => a + b, 0) / own.length : null];
    }));
    const best = new Map(columns.map((task) => {
      const fair = rows.filter((r) => r.task === task && !r.contained).map((r) => value(r.method, task)).filter((v) => v !== null);
      return [task, { top: higherIsBetter() ? Math.max(...fair) : Math.min(...fair), low: Math.min(...fair), high: Math.max(...fair) }];
    }));
    const sortValue = (method) => (board.sort === "rank" ? ranks.get(method) : value(method, board.sort));
    const methods = [...ranks.keys()].sort((a, b) => {
      if (board.sort === "method") return (board.down ? -1 : 1) * a.localeCompare(b, "en");
      const [va, vb] = [sortValue(a), sortValue(b)];
      if (va === null || vb === null) return (va === null) - (vb === null);
      return (board.down ? vb - va : va - vb) || a.localeCompare(b, "en");
    });
    const heading = (key, label, below) =>
      el("th", { scope: "col", "aria-sort": board.sort === key ? (board.down ? "descending" : "ascending") : null },
        el("button", { type: "button", "data-sort": key, on: { click: () => sortBy(key) } }, label),
        below ? el("span", { class: "sub" }, below) : null);
    const below = (task) => {
      const row = rows.find((r) => r.task === task);
      return METRICS[metricOf(keyOf(row)).metric] || keyOf(row);
    };
    const body = (method, task) => {
      const row = cell.get(`${method}\n${task}`);
      const found = row && row.figures[keyOf(row)];
      if (!found) return el("td", {}, row && !row.figures[row.headline] ? "not estimable" : "–");
      const { top, low, high } = best.get(task);
      const good = row.contained || high === low ? 0 : (higherIsBetter() ? found.mean - low : high - found.mean) / (high - low);
      return el("td", {
        class: row.contained ? "contained" : found.mean === top ? "best" : null,
        css: { background: good ? `color-mix(in srgb, var(--accent) ${Math.round(18 * good)}%, transparent)` : "" },
        title: row.contained ? "the target is contained in an input" : null,
      }, row.contained ? "⊂ " : "", figure(found.mean), found.sd === null ? null : el("span", { class: "spread" }, ` ± ${figure(found.sd)}`));
    };
    const about = (method) => {
      const row = rows.find((r) => r.method === method);
      return [row.inputs, row.protocol, row.captioner && `captions: ${row.captioner}`].filter(Boolean).join(" · ");
    };
    const reach = (label, part) => {
      const cells = columns.map((task) => {
        const row = rows.find((r) => r.task === task);
        const found = data.reachable.find((r) => r.task === task && r.split === board.split && r.figure === keyOf(row));
        return found ? found[part] : null;
      });
      if (cells.every((v) => v === null)) return null;
      return el("tr", {}, el("th", { scope: "row" }, label), el("td", {}), cells.map((v) => el("td", {}, figure(v))));
    };
    const reached = [reach("Within reach", "function"), reach("… with kriging", "kriging")].filter(Boolean);
    byId("board").replaceChildren(
      el("thead", {}, el("tr", {}, heading("method", "Method"), heading("rank", "Mean rank"), columns.map((t) => heading(t, words(t), below(t))))),
      el("tbody", {}, methods.map((method) =>
        el("tr", { "data-method": method },
          el("th", { scope: "row" }, method, el("span", { class: "sub" }, about(method))),
          el("td", {}, ranks.get(method) === null ? "–" : ranks.get(method).toFixed(1)),
          columns.map((task) => body(method, task))))),
      reached.length ? el("tfoot", {}, reached) : "");
    const fits = Math.max(0, ...rows.flatMap((r) => Object.values(r.figures).map((f) => f.runs.length)));
    byId("board-key").textContent =
      `Up to ${fits} fits (folds × seeds) a figure. Underlined: best of its column. ⊂: the target is contained in an input of the method, so it is not ranked.` +
      (reached.length ? " Within reach: what the simulator's own noise-free function scores; with kriging: with what the residuals of the training regions tell of the noise." : "") +
      " Mean rank: over the indicators, by R² or macro F1.";
  }

  function sortBy(key) {
    const down = key === "method" || key === "rank" ? false : higherIsBetter();
    board.down = board.sort === key ? !board.down : down;
    board.sort = key;
    if (tasks.has(key)) { board.task = key; byId("detail-task").value = key; paintDetail(); }
    paintBoard();
    byId("board").querySelectorAll("button").forEach((button) => { if (button.dataset.sort === key) button.focus(); });
  }

  function paintDetail() {
    const rows = rowsNow().filter((r) => r.task === board.task && r.figures[keyOf(r)]);
    const better = higherIsBetter() ? 1 : -1;
    rows.sort((a, b) => better * (b.figures[keyOf(b)].mean - a.figures[keyOf(a)].mean));
    const fair = rows.filter((r) => !r.contained);
    const methods = rows.map((r) => r.method);
    if (!methods.includes(board.method)) board.method = (fair[0] || rows[0] || { method: null }).method;
    board.method = fillSelect(byId("detail-method"), methods.map((m) => [m, m]), board.method);
    byId("dots-title").textContent = rows.length ? `${words(board.task)}: ${figureName(keyOf(rows[0]))}` : "";
    byId("dots").replaceChildren(...(rows.length ? dots(rows) : [el("p", { class: "empty" }, "Nothing to show.")]));
    paintDuels();
  }

  /** One line a method: every fit a dot, mean and deviation above them; what is within reach dashed. */
  function dots(rows) {
    const key = keyOf(rows[0]);
    const room = Math.max(320, Math.min(560, byId("dots").clientWidth || 480));
    const reach = data.reachable.find((r) => r.task === board.task && r.split === board.split && r.figure === key);
    const lines = reach ? [["the true function", reach.function, "6 4"], ["with kriging", reach.kriging, "2 3"]].filter(([, v]) => v !== null) : [];
    const every = [...rows.flatMap((r) => [r.figures[key].mean, ...r.figures[key].runs]), ...lines.map(([, v]) => v)];
    let [low, high] = [Math.min(...every), Math.max(...every)];
    if (metricOf(key).metric === "r2") low = Math.max(low, -0.5);
    const pad = 0.06 * (high - low || 1);
    [low, high] = [low - pad, high + pad];
    const longest = Math.max(...rows.map((r) => r.method.length));
    const left = Math.min(room * 0.38, 14 + 7.2 * longest);
    const short = (text) => { const most = Math.floor((left - 14) / 7); return text.length > most ? `${text.slice(0, most - 1)}…` : text; };
    const [step, top] = [34, 6];
    const height = top + step * rows.length + 30;
    const toX = (v) => left + ((Math.max(v, low) - low) / (high - low)) * (room - left - 14);
    const bottom = height - 26;
    const note = "Small dots: single fits. Large dot and line: mean and standard deviation."
      + (lines.length ? ` Within reach: ${lines.map(([label, v], i) => `${label} ${figure(v)} (${i ? "dotted" : "dashed"})`).join(", ")}.` : "");
    return [svg("svg", { viewBox: `0 0 ${room} ${height}`, role: "img", "aria-label": `${words(board.task)} by method` },
      niceTicks(low, high, 6).map((v) => [
        svg("line", { x1: toX(v), x2: toX(v), y1: top, y2: bottom, stroke: css("--line") }),
        svg("text", { x: toX(v), y: bottom + 18, "text-anchor": "middle" }, format(Math.round(v * 1e9) / 1e9))]),
      lines.map(([, v, dash]) => svg("line", { x1: toX(v), x2: toX(v), y1: top, y2: bottom, stroke: css("--ink"), "stroke-width": 1.4, "stroke-dasharray": dash })),
      rows.map((row, i) => {
        const y = top + step * (i + 0.5);
        const { mean, sd, runs } = row.figures[key];
        const colour = row.contained ? css("--soft") : css("--accent");
        return svg("g", {},
          svg("title", {}, `${row.method}: ${figure(mean)}${sd === null ? "" : ` ± ${figure(sd)}`}`),
          svg("text", { class: "strong", x: left - 10, y: y + 4, "text-anchor": "end" }, (row.contained ? "⊂ " : "") + short(row.method)),
          runs.map((v) => svg("circle", { cx: toX(v), cy: y, r: 3.2, fill: colour, opacity: 0.28 })),
          sd === null ? null : svg("line", { x1: toX(mean - sd), x2: toX(Math.min(mean + sd, high)), y1: y, y2: y, stroke: colour, "stroke-width": 2 }),
          svg("circle", { cx: toX(mean), cy: y, r: 5, fill: colour, stroke: css("--page"), "stroke-width": 1.5 }));
      })),
    el("p", { class: "legend" }, note)];
  }

  function paintDuels() {
    const own = data.comparisons.filter((c) => c.task === board.task && c.split === board.split && (c.a === board.method || c.b === board.method));
    const duels = own.map((c) => (c.a === board.method
      ? { other: c.b, difference: c.difference, low: c.low, high: c.high, regions: c.regions }
      : { other: c.a, difference: -c.difference, low: c.high === null ? null : -c.high, high: c.low === null ? null : -c.low, regions: c.regions }));
    duels.sort((a, b) => b.difference - a.difference);
    if (!duels.length) { byId("duels").replaceChildren(el("p", { class: "empty" }, "There is nothing to compare with.")); return; }
    const range = (d, flip) => (flip ? `${figure(-d.difference)} [${figure(-d.high)}, ${figure(-d.low)}]` : `${figure(d.difference)} [${figure(d.low)}, ${figure(d.high)}]`);
    byId("duels").replaceChildren(
      el("ul", { class: "duels" }, duels.map((d) => {
        const clear = d.low !== null && (d.low > 0 || d.high < 0);
        if (!clear) return el("li", { class: "open" }, el("b", {}, board.method), " and ", el("b", {}, d.other), ` cannot be told apart: ${range(d)}`);
        const worse = d.difference < 0;
        return el("li", {}, el("b", {}, board.method), worse ? " is worse than " : " is better than ", el("b", {}, d.other), ` by ${range(d, worse)}`);
      })),
      el("p", { class: "key" }, `Difference in R² or macro F1 over all test regions, with its 95 % interval by paired bootstrap over ${duels[0].regions.toLocaleString("en-US")} regions.`));
  }

  function wireBoard() {
    segments(byId("board-split"), splits.map((s) => [s, `${s} split`]), board.split, (value) => { board.split = value; wireDetail(); paintBoard(); paintDetail(); });
    const keys = unique(data.board.flatMap((r) => Object.keys(r.figures))).sort();
    fillSelect(byId("board-metric"), [["headline", "R² (classes: macro F1)"], ...keys.map((k) => [k, figureName(k)])], board.metric);
    byId("board-metric").addEventListener("change", (event) => {
      board.metric = event.target.value;
      Object.assign(board, { sort: "rank", down: false });
      wireDetail();
      paintBoard();
      paintDetail();
    });
    byId("detail-task").addEventListener("change", (event) => { board.task = event.target.value; paintDetail(); });
    byId("detail-method").addEventListener("change", (event) => { board.method = event.target.value; paintDuels(); });
    wireDetail();
  }
  function wireDetail() {
    board.task = fillSelect(byId("detail-task"), boardTasks().map((t) => [t, words(t)]), board.task);
  }

  // --- embeddings ----------------------------------------------------------------------------------

  const embedded = { method: Object.keys(data.embeddings)[0] || null, axes: "pca" };
  let embeddingViews = null;

  function paintEmbedding() {
    const found = data.embeddings[embedded.method];
    const cluster = unpacked(found.cluster);
    const [x, y] = [1, 2].map((k) => unpacked(found[`${embedded.axes}_${k}`]));
    const colours = Array.from(cluster, classShade);
    embeddingViews.scatter.paint({ x, y, colours, range: [...padded(x), ...padded(y)] });
    embeddingViews.map.paint(colours);
    byId("embedding-title").textContent = embedded.axes === "pca" ? "First two principal components" : "t-SNE";
    const sizes = new Map();
    cluster.forEach((c) => { if (Number.isFinite(c)) sizes.set(c, (sizes.get(c) || 0) + 1); });
    const missing = cluster.some((c) => !Number.isFinite(c));
    classLegend(byId("cluster-legend"), [...sizes.keys()].sort((a, b) => a - b).map((c) => [c, `cluster ${c + 1}: ${sizes.get(c).toLocaleString("en-US")} regions`]), missing ? "no embedding" : null);
  }

  function wireEmbedding() {
    if (!embedded.method) return;
    const describeCluster = (i) => {
      const c = unpacked(data.embeddings[embedded.method].cluster)[i];
      return [name(i), Number.isFinite(c) ? `cluster ${c + 1}` : "no embedding"];
    };
    embeddingViews = {
      scatter: new Scatter(byId("embedding"), "Embeddings in two dimensions", describeCluster),
      map: new RegionMap(byId("cluster-map"), "Map of clusters", describeCluster),
    };
    const axes = () => {
      const has = (axis) => Boolean(data.embeddings[embedded.method][`${axis}_1`]);
      if (!has(embedded.axes)) embedded.axes = "pca";
      segments(byId("embedding-axes"), [["pca", "PCA"], ["tsne", "t-SNE", has("tsne") ? null : "t-SNE is drawn for cities of 5 to 3,000 regions"]], embedded.axes, (value) => { embedded.axes = value; paintEmbedding(); });
    };
    fillSelect(byId("embedding-method"), Object.keys(data.embeddings).map((m) => [m, m]), embedded.method);
    byId("embedding-method").addEventListener("change", (event) => { embedded.method = event.target.value; axes(); paintEmbedding(); });
    axes();
  }

  // --- page ----------------------------------------------------------------------------------------

  function paintAll() {
    paintPartition();
    paintMaps();
    paintBoard();
    paintDetail();
    if (embeddingViews) paintEmbedding();
  }
  wirePartition();
  wireMaps();
  wireBoard();
  wireEmbedding();
  paintAll();
  dark.addEventListener("change", paintAll);
  addEventListener("scroll", () => point(-1), { passive: true });
  let dotsWidth = byId("dots").clientWidth;
  new ResizeObserver(() => {
    if (byId("dots").clientWidth !== dotsWidth) { dotsWidth = byId("dots").clientWidth; paintDetail(); }
  }).observe(byId("dots"));

  const links = [...document.querySelectorAll(".sections a")];
  const watch = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      links.forEach((link) => link.setAttribute("aria-current", String(link.hash === `#${entry.target.id}`)));
    });
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => watch.observe(section));
})();
