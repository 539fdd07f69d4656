"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const state = { video: 0, frame: 0, panel: "rgb", pixel: null, held: false, timer: null, direction: 1 };
const decoded = new Map(); // "video/frame" → {ids, true, sim, normals, nocs} as ImageData

const video = () => data.videos[state.video];
const frame = () => video().frames[state.frame];
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/* ---- values of pixels ---- */
async function decode(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
async function pixelsOf(v, f) {
  const key = v + "/" + f;
  if (!decoded.has(key)) {
    const packed = data.videos[v].frames[f].pixels, out = {};
    decoded.set(key, Promise.all(Object.keys(packed).map(async k => { out[k] = await decode(packed[k]); })).then(() => out));
  }
  return decoded.get(key);
}
function at(image, x, y, stride) {
  const i = 4 * (Math.floor(y / stride) * image.width + Math.floor(x / stride));
  return [image.data[i], image.data[i + 1], image.data[i + 2]];
}
function valuesAt(packed, x, y) {
  const depth = name => packed[name] && (([high, low]) => (high * 256 + low) * data.depthStepM)(at(packed[name], x, y, data.stride));
  const out = { x, y, true_m: depth("true"), sim_m: depth("sim") };
  if (packed.ids) [out.link, out.object, out.amodal] = at(packed.ids, x, y, 1);
  if (packed.normals) {
    const n = at(packed.normals, x, y, data.stride).map(c => (c - 128) / 127);
    out.normal = n.some(c => c !== 0) ? n : null;
  }
  if (packed.nocs) {
    const c = at(packed.nocs, x, y, data.stride);
    out.nocs = c.some(u => u > 0) ? c.map(u => u / 255) : null;
  }
  if (out.true_m && out.sim_m) out.error_mm = (out.sim_m - out.true_m) * 1000;
  return out;
}

/* ---- drawing ---- */
function fillList(table, rows) {
  const body = table.tBodies[0] || table.appendChild(document.createElement("tbody"));
  body.replaceChildren(...rows.map(([name, value, colour]) => {
    const cell = element("td", {}, ...(colour ? [element("i", { className: "swatch", style: "background:" + colour })] : []), value);
    return element("tr", {}, element("th", { textContent: name }), cell);
  }));
}
function showReadout(values) {
  const v = video(), none = "–";
  const vector = (n, digits) => n ? n.map(c => c.toFixed(digits).replace("-", "−")).join("  ") : none;
  const metres = m => m === undefined ? none : m > 0 ? m.toFixed(4) + " m" : "none";
  const rows = [["pixel", values ? values.x + ", " + values.y : none]];
  const has = frame().pixels, w = values || {};
  if (has.true) rows.push(["depth, true", metres(w.true_m)]);
  if (has.sim) rows.push(["depth, sensor", metres(w.sim_m)]);
  if (has.true && has.sim) rows.push(["error", w.error_mm === undefined ? none : (w.error_mm < 0 ? "−" : "+") + Math.abs(w.error_mm).toFixed(1) + " mm"]);
  if (has.ids) {
    rows.push(["link", w.link ? v.links[w.link - 1] || "id " + w.link : none, w.link ? data.linkColours[w.link] : null]);
    rows.push(["object", w.object ? v.objects[w.object] || "id " + w.object : none, w.object ? data.objectColours[w.object] : null]);
    if (w.amodal && !w.link) rows.push(["behind it", "the robot"]);
  }
  if (has.normals) rows.push(["normal x y z", vector(w.normal, 2)]);
  if (has.nocs) rows.push(["NOCS x y z", vector(w.nocs, 2)]);
  const near = values && nearestKeypoint(values.x, values.y);
  rows.push(["keypoint", near ? v.keypoints[near.index] + (frame().states[near.index] === 2 ? " (seen)" : " (hidden)") : none]);
  fillList($("readout"), rows);
}
function nearestKeypoint(x, y) {
  let best = null;
  frame().keypoints.forEach((p, index) => {
    if (!p || frame().states[index] === 0) return;
    const distance = Math.hypot(p[0] - x, p[1] - y);
    if (distance < 9 && (!best || distance < best.distance)) best = { index, distance };
  });
  return best;
}
function drawLoupe() {
  const loupe = $("loupe"), context = loupe.getContext("2d"), n = 11, cell = loupe.width / n;
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#17191e";
  context.fillRect(0, 0, loupe.width, loupe.height);
  if (!state.pixel || !$("picture").naturalWidth) return;
  const [x, y] = state.pixel, half = (n - 1) / 2;
  for (const source of [$("picture"), $("overlay")]) {
    context.drawImage(source, x - half, y - half, n, n, 0, 0, loupe.width, loupe.height);
  }
  context.strokeStyle = "#000"; context.lineWidth = 3;
  context.strokeRect(half * cell, half * cell, cell, cell);
  context.strokeStyle = "#fff"; context.lineWidth = 1.4;
  context.strokeRect(half * cell, half * cell, cell, cell);
}
const rgbOf = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
function drawMasks(packed) {
  const canvas = $("overlay"), v = video(), context = canvas.getContext("2d");
  canvas.width = v.width; canvas.height = v.height;
  const links = $("show-links").checked, objects = $("show-objects").checked, amodal = $("show-amodal").checked;
  if (!packed.ids || !(links || objects || amodal)) return;
  const out = context.createImageData(v.width, v.height), ids = packed.ids.data, alpha = Math.round($("opacity").value * 2.55);
  const linkColours = data.linkColours.map(rgbOf), objectColours = data.objectColours.map(rgbOf);
  const inside = (x, y) => x < 0 || y < 0 || x >= v.width || y >= v.height || ids[4 * (y * v.width + x) + 2] > 0;
  for (let y = 0, i = 0; y < v.height; y++) for (let x = 0; x < v.width; x++, i += 4) {
    let colour = null, a = alpha;
    if (objects && ids[i + 1]) colour = objectColours[ids[i + 1]];
    if (links && ids[i]) colour = linkColours[ids[i]];
    if (amodal && ids[i + 2]) {
      const edge = !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
      if (edge) { colour = [255, 255, 255]; a = 255; }
      else if (!ids[i]) { colour = [255, 138, 61]; if ((x - y + v.height * 6) % 6 < 3) a = Math.min(255, alpha * 1.5); else a = alpha * 0.7; }
      else if (!links) colour = [74, 163, 255];
    }
    if (colour) { out.data[i] = colour[0]; out.data[i + 1] = colour[1]; out.data[i + 2] = colour[2]; out.data[i + 3] = a; }
  }
  context.putImageData(out, 0, 0);
}
function drawKeypoints() {
  const svg = $("marks"), v = video(), f = frame(), unit = Math.max(v.width / 640, 0.5), make = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, value] of Object.entries(attributes)) node.setAttribute(k, value);
    if (text) node.textContent = text;
    return node;
  };
  // pixel centres are integers: the picture spans −0.5 … size − 0.5
  svg.setAttribute("viewBox", `-0.5 -0.5 ${v.width} ${v.height}`);
  svg.replaceChildren();
  if ($("show-keypoints").checked) {
    const far = 8 * Math.max(v.width, v.height), usable = k => f.keypoints[k] && Math.max(...f.keypoints[k].map(Math.abs)) < far;
    const edges = v.edges.filter(([a, b]) => usable(a) && usable(b));
    const line = (a, b, stroke, width, opacity) => make("line", {
      x1: f.keypoints[a][0], y1: f.keypoints[a][1], x2: f.keypoints[b][0], y2: f.keypoints[b][1],
      stroke, "stroke-width": width * unit, "stroke-opacity": opacity, "stroke-linecap": "round" });
    edges.forEach(([a, b, stub]) => svg.append(line(a, b, "#0c0c0e", stub ? 1.6 : 3.4, .5)));
    edges.forEach(([a, b, stub]) => svg.append(line(a, b, v.keypointColours[b], stub ? .8 : 1.7, 1)));
    const words = [], stubs = new Set(v.edges.filter(e => e[2]).map(e => e[1]));
    f.keypoints.map((p, k) => k).sort((a, b) => f.states[a] - f.states[b]).forEach(k => {
      if (!usable(k) || f.states[k] === 0) return;
      const [cx, cy] = f.keypoints[k], r = (stubs.has(k) ? 2.4 : 3.6) * unit, colour = v.keypointColours[k];
      if (f.states[k] === 2) svg.append(make("circle", { cx, cy, r, fill: colour, stroke: "#fff", "stroke-width": 1.1 * unit }));
      else svg.append(make("circle", { cx, cy, r: r + .7 * unit, fill: "rgb(12 12 14 / .5)", stroke: "#0c0c0e", "stroke-width": .8 * unit }),
        make("circle", { cx, cy, r: r * .8, fill: "none", stroke: colour, "stroke-width": 1.4 * unit }));
      if ($("show-names").checked && !stubs.has(k)) words.push(make("text", { x: cx + 7 * unit, y: cy - 5 * unit, style: `font-size:${9.5 * unit}px` }, v.keypointLabels[k]));
    });
    svg.append(...words); // above all dots
  }
  if (state.held && state.pixel) {
    const [x, y] = state.pixel, gap = 4 * unit, arm = 11 * unit, strokes = `M${x - arm} ${y}H${x - gap}M${x + gap} ${y}H${x + arm}M${x} ${y - arm}V${y - gap}M${x} ${y + gap}V${y + arm}`;
    svg.append(make("path", { d: strokes, stroke: "#000", "stroke-width": 3 * unit, fill: "none", "stroke-opacity": .6 }),
      make("path", { d: strokes, stroke: "#fff", "stroke-width": 1.3 * unit, fill: "none" }));
  }
}
function drawScale(values) {
  const box = $("scale"), v = video(), depth = state.panel === "depth_z" || state.panel === "depth_sim";
  const scale = depth ? v.depthScale : state.panel === "depth_error" ? data.errorScale : null;
  box.classList.toggle("empty", !scale); // keeps its place: switching modality moves nothing
  if (!scale) return;
  const ramp = element("div", { className: "ramp", style: `background:linear-gradient(90deg,${scale.stops.join(",")})` });
  const marks = scale.marks.map(([u, text]) => element("span", {
    className: "mark" + (u < .03 ? " first" : u > .97 ? " last" : ""), style: `left:${u * 100}%`, textContent: text }));
  box.replaceChildren(ramp, ...marks);
  const m = values && (state.panel === "depth_z" ? values.true_m : values.sim_m);
  let u = null;
  if (depth && m > 0) u = (1 / scale.near - 1 / m) / (1 / scale.near - 1 / scale.far);
  if (!depth && values && values.error_mm !== undefined) u = .5 + .5 * values.error_mm / scale.limit_mm;
  if (u !== null) box.append(element("div", { className: "needle", style: `left:${Math.min(1, Math.max(0, u)) * 100}%` }));
}

/* ---- state → page ---- */
async function refreshPixel() {
  const v = state.video, f = state.frame, packed = await pixelsOf(v, f);
  if (v !== state.video || f !== state.frame) return;
  const values = state.pixel ? valuesAt(packed, ...state.pixel) : null;
  showReadout(values);
  drawScale(values);
  drawLoupe();
}
async function refresh() {
  const v = video(), f = frame(), key = state.video + "/" + state.frame;
  if (!v.panels.includes(state.panel)) state.panel = v.panels[0];
  document.querySelectorAll("#strip button").forEach((b, i) => b.setAttribute("aria-selected", i === state.video));
  $("tabs").replaceChildren(...v.panels.map(name => {
    const button = element("button", { type: "button", textContent: data.panels[name].label, title: data.panels[name].note, onclick: () => { state.panel = name; refresh(); } });
    button.setAttribute("role", "tab");
    button.setAttribute("aria-selected", name === state.panel);
    return button;
  }));
  $("stage").style.aspectRatio = v.width + " / " + v.height;
  $("picture").src = f.pictures[state.panel];
  $("picture").alt = data.panels[state.panel].label + ", video " + v.number + ", frame " + f.frame;
  $("picture").style.imageRendering = v.width < 400 ? "pixelated" : "auto";
  $("frame").max = v.frames.length - 1;
  $("frame").value = state.frame;
  $("frame-label").textContent = `frame ${f.frame} · ${f.time_ms.toFixed(0)} ms${f.accepted ? "" : " · rejected"}`;
  $("command").textContent = `dataengine replay ${data.location} ${v.number} ${f.frame}`;
  fillList($("joints"), v.joints.map((name, j) => [name, f.joints[j] === null ? "–" : f.joints[j].toFixed(4).replace("-", "−")]));
  drawKeypoints();
  const packed = await pixelsOf(state.video, state.frame);
  if (key !== state.video + "/" + state.frame) return;
  drawMasks(packed);
  await $("picture").decode().catch(() => null);
  await refreshPixel();
  document.body.dataset.ready = key;
}
function select(v, f = 0) {
  state.video = (v + data.videos.length) % data.videos.length;
  state.frame = Math.min(Math.max(f, 0), video().frames.length - 1);
  refresh();
}
function step(by) {
  const count = video().frames.length;
  state.frame = (state.frame + by + count) % count;
  refresh();
}
function play() {
  const stop = state.timer !== null;
  clearInterval(state.timer);
  state.timer = stop ? null : setInterval(() => {
    const last = video().frames.length - 1;
    if (state.frame + state.direction > last || state.frame + state.direction < 0) state.direction *= -1;
    if (last > 0) { state.frame += state.direction; refresh(); }
  }, 280);
  $("play").textContent = stop ? "▶" : "❚❚";
}
function pixelOf(event) {
  const box = $("stage").getBoundingClientRect(), v = video();
  const x = Math.floor((event.clientX - box.left) / box.width * v.width), y = Math.floor((event.clientY - box.top) / box.height * v.height);
  return [Math.min(Math.max(x, 0), v.width - 1), Math.min(Math.max(y, 0), v.height - 1)];
}
async function copyCommand() {
  const text = $("command").textContent;
  try { await navigator.clipboard.writeText(text); }
  catch { // a page opened from a folder may have no clipboard
    const area = element("textarea", { value: text });
    document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
  $("copy").textContent = "copied";
  setTimeout(() => { $("copy").textContent = "copy"; }, 1400);
}

/* ---- events ---- */
function start() {
  $("strip").append(...data.videos.map((v, i) => {
    const button = element("button", { type: "button", title: "video " + v.number, onclick: () => select(i) },
      element("img", { src: v.thumbnail, alt: "video " + v.number }), element("span", { textContent: v.number }));
    button.setAttribute("role", "option");
    return button;
  }));
  $("stage").addEventListener("pointermove", e => { if (!state.held) { state.pixel = pixelOf(e); refreshPixel(); } });
  $("stage").addEventListener("pointerdown", e => {
    state.held = !(state.held && e.pointerType === "mouse");
    state.pixel = pixelOf(e);
    drawKeypoints(); refreshPixel();
  });
  $("frame").addEventListener("input", e => { state.frame = Number(e.target.value); refresh(); });
  $("play").addEventListener("click", play);
  $("copy").addEventListener("click", copyCommand);
  for (const box of [...document.querySelectorAll("#toggles input"), $("opacity")]) box.addEventListener("input", refresh);
  document.querySelectorAll("#videos tbody tr").forEach(row => {
    const open = () => { select(Number(row.dataset.video)); $("look").scrollIntoView({ behavior: "smooth" }); };
    row.addEventListener("click", open);
    row.addEventListener("keydown", e => { if (e.key === "Enter") open(); });
  });
  document.addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || (e.target.type === "range" && e.key.startsWith("Arrow"))) return;
    const toggles = { k: "show-keypoints", l: "show-links", o: "show-objects", a: "show-amodal" }, key = e.key.toLowerCase();
    if (key === "arrowleft") step(-1);
    else if (key === "arrowright") step(1);
    else if (key === "[") select(state.video - 1);
    else if (key === "]") select(state.video + 1);
    else if (key === " " && !["BUTTON", "INPUT", "SUMMARY"].includes(e.target.tagName)) { e.preventDefault(); play(); }
    else if (toggles[key]) { $(toggles[key]).checked = !$(toggles[key]).checked; refresh(); }
    else if (/^[1-9]$/.test(key) && video().panels[key - 1]) { state.panel = video().panels[key - 1]; refresh(); }
  });
  // #video=1&frame=2&panel=depth_z&x=10&y=20&show=links,objects opens the page there
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("panel")) state.panel = asked.get("panel");
  for (const name of (asked.get("show") || "").split(",").filter(Boolean)) if ($("show-" + name)) $("show-" + name).checked = true;
  if (asked.has("x")) { state.pixel = [Number(asked.get("x")), Number(asked.get("y"))]; state.held = true; }
  select(Number(asked.get("video") || 0), Number(asked.get("frame") || 0));
}
if (data.videos.length) start();
