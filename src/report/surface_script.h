// The script of the page's surfaces: draws the loss over two directions in perspective, beside the quadratic model, to
// be turned by pointer and arrow keys. Colours are the page's. Without scripts the page shows the flat picture alone.
#pragma once

namespace hesspect {

inline constexpr const char* kSurfaceScript = R"js(
for (const box of document.querySelectorAll(".surface")) {
  const s = JSON.parse(box.querySelector("script").textContent);
  const canvas = box.querySelector("canvas"), said = box.querySelector("output");
  const [showLoss, showModel, logarithmic] = box.querySelectorAll("input");
  const pen = canvas.getContext("2d"), rows = s.alpha.length, columns = s.beta.length;
  let turn = -0.65, tilt = 0.95, pointed = null;
  const share = (x, all) => (x - all[0]) / (all[all.length - 1] - all[0]) * 2 - 1;
  const level = x => logarithmic.checked ? Math.log(x) : x;
  const known = s.loss.flat().filter(x => x !== null);
  const lowest = Math.min(...known), highest = Math.max(...known);
  const height = x => {
    const low = level(lowest), high = level(highest);
    return x === null || logarithmic.checked && x <= 0 ? null : Math.min(1.6, Math.max(-0.6, (level(x) - low) / (high - low)));
  };
  const project = (x, y, z) => {
    const u = x * Math.cos(turn) - y * Math.sin(turn), v = x * Math.sin(turn) + y * Math.cos(turn);
    const depth = v * Math.sin(tilt) - (z - 0.5) * Math.cos(tilt), scale = 1.1 / (4.4 + depth);
    const unit = Math.min(canvas.width, canvas.height * 1.25);
    return [canvas.width / 2 + u * scale * unit,
            canvas.height / 2 - ((z - 0.5) * Math.sin(tilt) + v * Math.cos(tilt)) * scale * unit, depth];
  };
  const corner = (table, i, j) => {
    const z = height(table[i][j]);
    return z === null ? null : project(share(s.alpha[i], s.alpha), share(s.beta[j], s.beta), z);
  };
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);
  const patches = (table, fill, edge) => {
    const all = [];
    for (let i = 0; i + 1 < rows; ++i) for (let j = 0; j + 1 < columns; ++j) {
      const at = [corner(table, i, j), corner(table, i + 1, j), corner(table, i + 1, j + 1), corner(table, i, j + 1)];
      if (at.some(p => p === null)) continue;
      const mean = [0, 1, 2, 3].reduce((sum, k) => sum + height(table[i + (k === 1 || k === 2)][j + (k > 1)]), 0) / 4;
      all.push({at, depth: at.reduce((sum, p) => sum + p[2], 0), fill, edge, mean});
    }
    return all;
  };
  const line = (a, b) => { pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke(); };
  const draw = () => {
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    pen.lineWidth = scale;
    pen.strokeStyle = colour("--soft");
    const foot = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => project(x, y, 0));
    foot.forEach((p, k) => line(p, foot[(k + 1) % 4]));
    pen.fillStyle = colour("--ink");
    pen.font = 13 * scale + "px system-ui, sans-serif";
    const name = (text, [x, y]) => {
      pen.textAlign = x > canvas.width * 0.6 ? "left" : x < canvas.width * 0.4 ? "right" : "center";
      const wide = pen.measureText(text).width, room = 4 * scale;
      const left = {left: 0, right: wide, center: wide / 2}[pen.textAlign];
      pen.fillText(text, Math.min(canvas.width - room - wide + left, Math.max(room + left, x)), Math.min(canvas.height - room, y));
    };
    const a = project(0, -1.25, 0), b = project(1.25, 0, 0);
    name(s.names[0], a);
    name(s.names[1], b);
    let all = [];
    if (showLoss.checked) all = all.concat(patches(s.loss, "--blue", 0.9));
    if (showModel.checked) all = all.concat(patches(s.quadratic, "--orange", 0.35));
    all.sort((p, q) => q.depth - p.depth);
    for (const patch of all) {
      pen.beginPath();
      patch.at.forEach((p, k) => k ? pen.lineTo(p[0], p[1]) : pen.moveTo(p[0], p[1]));
      pen.closePath();
      pen.fillStyle = pen.strokeStyle = colour(patch.fill);
      pen.globalAlpha = patch.edge * (0.25 + 0.6 * Math.min(1, Math.max(0, patch.mean)));
      pen.fill();
      pen.globalAlpha = patch.edge;
      pen.stroke();
    }
    pen.globalAlpha = 1;
    const start = height(s.start);
    if (start !== null) {
      const p = project(share(0, s.alpha), share(0, s.beta), start);
      pen.fillStyle = colour("--ink");
      pen.beginPath();
      pen.arc(p[0], p[1], 4 * scale, 0, 7);
      pen.fill();
    }
    if (pointed) {
      const p = corner(s.loss, ...pointed);
      if (p) { pen.strokeStyle = colour("--ink"); pen.beginPath(); pen.arc(p[0], p[1], 6 * scale, 0, 7); pen.stroke(); }
    }
  };
  const point = event => {
    const scale = canvas.width / canvas.clientWidth, x = event.offsetX * scale, y = event.offsetY * scale;
    let best = Infinity;
    pointed = null;
    for (let i = 0; i < rows; ++i) for (let j = 0; j < columns; ++j) {
      const p = corner(s.loss, i, j), far = p ? Math.hypot(p[0] - x, p[1] - y) : Infinity;
      if (far < best && far < 25 * scale) { best = far; pointed = [i, j]; }
    }
    said.textContent = pointed === null ? "" : s.names[0] + " " + s.alpha[pointed[0]].toPrecision(3) + ", " + s.names[1] + " " +
      s.beta[pointed[1]].toPrecision(3) + ": loss " + s.loss[pointed[0]][pointed[1]].toPrecision(5) + ", quadratic model " +
      s.quadratic[pointed[0]][pointed[1]].toPrecision(5);
    draw();
  };
  const rotate = (by, up) => { turn += by; tilt = Math.min(1.55, Math.max(0.1, tilt + up)); draw(); };
  canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    if (event.buttons) rotate(event.movementX * 0.008, event.movementY * 0.006); else point(event);
  });
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.08], ArrowDown: [0, 0.08]}[event.key];
    if (step) { event.preventDefault(); rotate(...step); }
  });
  for (const input of [showLoss, showModel, logarithmic]) input.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  box.hidden = false;
  draw();
}
)js";

}  // namespace hesspect
