// The slice viewer's front end, one for both lives: in Jupyter with a kernel, and on a page without.
//
// An array of the volume is flat, with the patient's right-going axis fastest: voxel (i, j, k) of the shown grid
// (RAS order) is element i + I * (j + J * k). Everything is drawn here, from arrays that the browser holds: scrolling asks
// nobody. With a kernel the arrays arrive in boxes (see LiveVolumes); on a page they are unpacked from its text.

// The axis that is cut, the axes across and up, letters at the left, right, bottom and top (radiological).
const PLANES = {
  axial: { cut: 2, across: 0, up: 1, letters: "RLPA" },
  coronal: { cut: 1, across: 0, up: 2, letters: "RLIS" },
  sagittal: { cut: 0, across: 1, up: 2, letters: "APIS" },
};
const SLAB_BYTES = 4e6; // what one request to the kernel brings, about
const REQUESTS = 2; // how many are under way at once
const PATIENCE_MS = 5000; // without an answer, before asking again
const MISSED = 254, SPILLED = 255; // label values set aside for the error map

// ---------------------------------------------------------------------------------------------------------- volumes

class Volumes {
  constructor(meta, values, labels) {
    Object.assign(this, { meta, values, labels });
    this.shape = meta.shape;
    this.strides = [1, meta.shape[0], meta.shape[0] * meta.shape[1]];
    this.version = 0; // counts what arrived, so that pictures of older data are redrawn
    this.progress = 1;
  }

  index(voxel) {
    return voxel[0] + this.strides[1] * voxel[1] + this.strides[2] * voxel[2];
  }

  value(voxel) {
    return this.meta.offset + this.meta.step * this.values[this.index(voxel)];
  }

  isKnown() {
    return true;
  }
}

/** The volume of a stored page: zlib-compressed, in base64; low bytes, high bytes, then the labels, one byte each. */
async function unpack(meta, base64) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = meta.shape[0] * meta.shape[1] * meta.shape[2];
  const values = new Uint16Array(size);
  for (let n = 0; n < size; n++) values[n] = bytes[n] | (bytes[size + n] << 8);
  const count = bytes.length / size - 2;
  const labels = Array.from({ length: count }, (_, n) => bytes.subarray((n + 2) * size, (n + 3) * size));
  return new Volumes(meta, values, labels);
}

/** Volumes at full resolution that come from the kernel: the slices of the first picture at once, the rest in slabs. */
class LiveVolumes extends Volumes {
  constructor(model, meta, onArrival) {
    const size = meta.shape[0] * meta.shape[1] * meta.shape[2];
    const labels = Array.from({ length: meta.labelCount }, () => new Uint8Array(size));
    super(meta, meta.type === "int16" ? new Int16Array(size) : new Float32Array(size), labels);
    Object.assign(this, { model, onArrival, known: new Uint8Array(meta.shape[2]), progress: 0 });
    for (const { box, parts } of model.get("first")) this.store(box, parts);
    this.slab = Math.max(1, Math.round(SLAB_BYTES / (this.strides[2] * (this.values.BYTES_PER_ELEMENT + meta.labelCount))));
    this.receive = (content, buffers) => this.arrived(content, buffers);
    model.on("msg:custom", this.receive);
    this.wanted = this.slabsByDistance(meta.start[2]);
    for (let n = 0; n < REQUESTS; n++) this.request();
    this.arrivals = performance.now();
    this.watch = setInterval(() => this.askAgain(), PATIENCE_MS);
  }

  /** A request may be lost, for example while the kernel starts its comms: ask again for what has not come. */
  askAgain() {
    if (this.progress === 1) return clearInterval(this.watch);
    if (performance.now() - this.arrivals < PATIENCE_MS) return;
    this.wanted = this.slabsByDistance(this.meta.start[2]).filter((k) => !this.known[k]);
    this.request();
  }

  slabsByDistance(centre) {
    const starts = [];
    for (let k = 0; k < this.shape[2]; k += this.slab) starts.push(k);
    const distance = (k) => Math.abs(k + this.slab / 2 - centre);
    return starts.sort((a, b) => distance(a) - distance(b));
  }

  request() {
    const k = this.wanted.shift();
    if (k !== undefined) this.model.send({ want: "slab", slices: [k, Math.min(k + this.slab, this.shape[2])] });
  }

  arrived(content, buffers) {
    if (content.box === undefined) return;
    const [first, end] = content.box[2];
    this.arrivals = performance.now();
    if (this.known[first]) return; // asked for by another view of the same viewer, or twice
    this.request();
    this.store(content.box, buffers);
    this.known.fill(1, first, end);
    this.progress = this.known.reduce((sum, one) => sum + one, 0) / this.shape[2];
    this.onArrival();
  }

  store(box, parts) {
    const [[i0, i1], [j0, j1], [k0, k1]] = box;
    const targets = [this.values, ...this.labels], [across, deep] = this.shape;
    const run = i1 - i0 < across ? i1 - i0 : (j1 - j0 < deep ? j1 - j0 : deep * (k1 - k0)) * across; // what lies in one piece
    parts.forEach((part, n) => {
      const target = targets[n], source = asArray(part, target.constructor);
      for (let from = 0, k = k0, j = j0; from < source.length; from += run) {
        const at = this.index([i0, j, k]);
        if (run === 1) target[at] = source[from];
        else target.set(source.subarray(from, from + run), at);
        j += run < across ? 1 : run / across;
        if (j >= j1) [j, k] = [j0, k + 1];
      }
    });
    this.version += 1;
  }

  isKnown(voxel) {
    return this.known[voxel[2]] === 1 || this.meta.start.some((at, axis) => voxel[axis] === at);
  }

  close() {
    clearInterval(this.watch);
    this.model.off("msg:custom", this.receive);
  }
}

function asArray(view, Type) {
  const aligned = view.byteOffset % Type.BYTES_PER_ELEMENT === 0;
  const buffer = aligned ? view.buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  return new Type(buffer, aligned ? view.byteOffset : 0, view.byteLength / Type.BYTES_PER_ELEMENT);
}

// --------------------------------------------------------------------------------------------------------- painting

/** Fill `pixels` (32-bit, row by row from the top) with one slice; leave its visible labels in `truth` and `prediction`. */
function paintSlice(volumes, slice, look, pixels, truth, prediction) {
  const { values, meta } = volumes;
  const low = (look.window[0] - meta.offset) / meta.step;
  const gain = 255 / ((look.window[1] - look.window[0]) / meta.step);
  const truths = slice.truth, predictions = slice.prediction;
  const { visible, palette, opacity } = look;
  for (let y = 0, at = 0; y < slice.height; y++) {
    let from = slice.origin + y * slice.down;
    for (let x = 0; x < slice.width; x++, at++, from += slice.right) {
      const grey = Math.max(0, Math.min(255, (values[from] - low) * gain));
      const t = (truth[at] = truths ? visible[truths[from]] : 0);
      const p = (prediction[at] = predictions ? visible[predictions[from]] : 0);
      const color = look.errors ? errorOf(t, p) : (look.predictionFilled && p) || (look.truthFilled && t);
      pixels[at] = color ? blend(grey, palette[color], opacity) : 0xff000000 | ((grey & 255) * 0x010101);
    }
  }
}

function errorOf(truth, prediction) {
  if (truth === prediction) return 0;
  return prediction === 0 ? MISSED : SPILLED;
}

function blend(grey, [red, green, blue], opacity) {
  const rest = grey * (1 - opacity);
  return 0xff000000 | ((rest + blue * opacity) << 16) | ((rest + green * opacity) << 8) | (rest + red * opacity);
}

/** The borders of each label of a slice, along the edges of its pixels: {value: Path2D}, in units of pixels. */
function borders(labels, width, height, dash) {
  const paths = {};
  const edge = (value, x0, y0, x1, y1) => {
    if (!value || (dash && (Math.floor((x0 + y0) / dash) & 1))) return;
    const path = (paths[value] ??= new Path2D());
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
  };
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const here = labels[at], right = x + 1 < width ? labels[at + 1] : 0, below = y + 1 < height ? labels[at + width] : 0;
      if (here !== right) {
        edge(here, x + 1, y, x + 1, y + 1);
        edge(right, x + 1, y, x + 1, y + 1);
      }
      if (here !== below) {
        edge(here, x, y + 1, x + 1, y + 1);
        edge(below, x, y + 1, x + 1, y + 1);
      }
    }
  }
  return paths;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function lighter(hex) {
  return `rgb(${rgb(hex).map((part) => Math.round(part / 2 + 127)).join(" ")})`;
}

// --------------------------------------------------------------------------------------------------------- document

/** Make an element. Text is set as text, never as HTML, whatever the names of structures hold. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function choice(label, options, selected, onchange, attributes = {}) {
  const select = make("select", { "aria-label": label, onchange: () => onchange(select.value), ...attributes });
  for (const [value, text] of options) select.append(make("option", { value }, text));
  select.value = selected;
  return select;
}

function labelled(text, control) {
  return make("label", {}, make("span", {}, text), control);
}

function rounded(value, digits = 1) {
  return Number.isInteger(value) ? String(value) : value.toFixed(digits);
}

// ------------------------------------------------------------------------------------------------- one plane's panel

class Panel {
  constructor(viewer, name, prediction) {
    Object.assign(this, { viewer, name, prediction, plane: PLANES[name], key: "" });
    const { across, up, cut } = this.plane;
    const { shape, meta } = viewer.volumes;
    this.size = [shape[across], shape[up]];
    this.millimetres = [shape[across] * meta.spacing[across], shape[up] * meta.spacing[up]];
    this.last = shape[cut] - 1;
    this.canvas = make("canvas", { tabindex: "0", role: "img", class: "slice" });
    this.canvas.style.aspectRatio = `${this.millimetres[0]} / ${this.millimetres[1]}`;
    this.slider = make("input", { type: "range", min: "0", max: String(this.last), step: "1" });
    this.strip = make("canvas", { class: "strip", role: "img", height: "36", hidden: !viewer.hasTruth && !viewer.hasPrediction });
    this.caption = make("figcaption");
    this.element = make("figure", { class: "panel" }, this.canvas, this.slider, this.strip, this.caption);
    this.element.dataset.plane = name;
    this.element.dataset.prediction = String(prediction);
    const pixels = this.size[0] * this.size[1];
    this.image = new ImageData(this.size[0], this.size[1]);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.labels = [new Uint8Array(pixels), new Uint8Array(pixels)];
    this.buffer = make("canvas", { width: String(this.size[0]), height: String(this.size[1]) });
    this.base = make("canvas");
    this.stripBase = make("canvas");
    this.bind();
  }

  get flipped() {
    return this.name === "sagittal" || this.viewer.state.convention === "radiological";
  }

  get at() {
    return this.viewer.state.position[this.plane.cut];
  }

  // ------------------------------------------------------------------------------------------------------- drawing

  /** Put picture and strip on the screen. Both are kept and made anew only when what they show has changed. */
  draw() {
    const { state, volumes } = this.viewer;
    const look = JSON.stringify([this.at, volumes.version, state.window, state.truth, state.predictionStyle, state.errors,
      state.opacity, [...state.hidden], state.convention, this.scale()]);
    if (look !== this.key) {
      this.paint();
      this.compose();
      this.key = look;
    }
    const context = this.canvas.getContext("2d");
    context.drawImage(this.base, 0, 0);
    this.drawCross(context);
    this.describe();
    this.drawStrip();
  }

  compose() {
    const [width, height] = [this.canvas.width, this.canvas.height];
    Object.assign(this.base, { width, height });
    const context = this.base.getContext("2d");
    context.imageSmoothingEnabled = width < this.size[0] || height < this.size[1];
    context.drawImage(this.buffer, 0, 0, width, height);
    this.drawBorders(context);
    this.drawLetters(context);
  }

  paint() {
    const { viewer, plane } = this;
    const { volumes, state } = viewer;
    const { strides } = volumes;
    const [width, height] = this.size;
    const sign = this.flipped ? -1 : 1;
    const slice = {
      width, height, right: sign * strides[plane.across], down: -strides[plane.up],
      origin: this.at * strides[plane.cut] + (height - 1) * strides[plane.up] + (this.flipped ? (width - 1) * strides[plane.across] : 0),
      truth: viewer.hasTruth ? volumes.labels[0] : null,
      prediction: this.prediction === null ? null : volumes.labels[this.prediction + (viewer.hasTruth ? 1 : 0)],
    };
    paintSlice(volumes, slice, viewer.look(), this.pixels, ...this.labels);
    this.buffer.getContext("2d").putImageData(this.image, 0, 0);
    const dash = Math.max(1, Math.round(4 * this.size[0] / this.canvas.width));
    const dashed = state.truth === "contour" ? dash : 0; // both as outlines: the prediction's is dotted
    this.truthPaths = state.truth === "contour" ? borders(this.labels[0], width, height, 0) : {};
    this.predictionPaths = state.predictionStyle === "contour" && !state.errors ? borders(this.labels[1], width, height, dashed) : {};
  }

  drawBorders(context) {
    const [across, down] = [this.canvas.width / this.size[0], this.canvas.height / this.size[1]];
    const thin = this.viewer.ratio;
    const stroke = (paths, widths) => {
      for (const [value, path] of Object.entries(paths)) {
        const scaled = new Path2D();
        scaled.addPath(path, new DOMMatrix([across, 0, 0, down, 0, 0]));
        for (const [width, color] of widths(this.viewer.colors[value])) {
          context.lineWidth = width * thin;
          context.strokeStyle = color;
          context.stroke(scaled);
        }
      }
    };
    context.lineCap = "square";
    const plain = this.viewer.state.errors; // the error map has colours of its own
    stroke(this.truthPaths, (color) => [[2.6, "black"], plain ? [1, "white"] : [1.4, lighter(color)]]);
    stroke(this.predictionPaths, (color) => [[3, "white"], [1.8, color]]);
  }

  drawCross(context) {
    const { across, up } = this.plane;
    const position = this.viewer.state.position;
    const column = this.flipped ? this.size[0] - 1 - position[across] : position[across];
    const x = (column + 0.5) * this.canvas.width / this.size[0];
    const y = (this.size[1] - 0.5 - position[up]) * this.canvas.height / this.size[1];
    const gap = 6 * this.viewer.ratio;
    context.lineCap = "butt";
    for (const [width, color] of [[2.5, "rgb(0 0 0 / 45%)"], [1, "#F0E442"]]) {
      context.lineWidth = width * this.viewer.ratio;
      context.strokeStyle = color;
      context.beginPath();
      for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, this.canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, this.canvas.height]]) {
        context.moveTo(x0, y0);
        context.lineTo(x1, y1);
      }
      context.stroke();
    }
  }

  letters() {
    const letters = [...this.plane.letters];
    const swapped = this.name !== "sagittal" && this.viewer.state.convention === "neurological";
    return swapped ? [letters[1], letters[0], letters[2], letters[3]] : letters;
  }

  drawLetters(context) {
    const size = 13 * this.viewer.ratio, [width, height] = [this.canvas.width, this.canvas.height];
    const places = [[size, height / 2], [width - size, height / 2], [width / 2, height - size], [width / 2, size]];
    context.font = `bold ${size}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 * this.viewer.ratio;
    context.strokeStyle = "black";
    context.fillStyle = "white";
    this.letters().forEach((letter, n) => {
      context.strokeText(letter, ...places[n]);
      context.fillText(letter, ...places[n]);
    });
  }

  describe() {
    const { meta } = this.viewer.volumes;
    const depth = (this.at * meta.spacing[this.plane.cut]).toFixed(0);
    const [left, right, bottom, top] = this.letters();
    const name = this.viewer.compares ? `${meta.predictions[this.prediction]}, ${this.name}` : this.name;
    const text = `${name}, slice ${this.at}, at ${depth} mm`; // counted from 0, as in NumPy
    const description = `${text}. Left ${left}, right ${right}, top ${top}, bottom ${bottom}.`;
    if (this.slider.value !== String(this.at)) this.slider.value = String(this.at);
    if (this.canvas.getAttribute("aria-label") === description) return;
    this.caption.textContent = text;
    this.canvas.setAttribute("aria-label", description);
    this.canvas.dataset.letters = `${left}${right}${bottom}${top}`;
    this.slider.setAttribute("aria-label", `${name} slice`);
    this.slider.setAttribute("aria-valuetext", `${text}, of slices 0 to ${this.last}`);
  }

  /** Below the slider, slice by slice: the Dice of each structure, or the area in error, or without truth the area. */
  drawStrip() {
    const { viewer, strip } = this, { state } = viewer;
    const key = JSON.stringify([state.strip, [...state.hidden], strip.width, viewer.ink]);
    if (key !== this.stripKey) {
      this.curves = viewer.curves(this.name, this.prediction);
      this.drawCurves();
      this.stripKey = key;
    }
    const context = strip.getContext("2d");
    context.clearRect(0, 0, strip.width, strip.height);
    context.drawImage(this.stripBase, 0, 0);
    context.fillStyle = viewer.ink;
    context.fillRect(this.stripX(this.at) - viewer.ratio / 2, 0, viewer.ratio, strip.height);
    const text = viewer.stripText(this.curves, this.at);
    if (strip.title !== text) {
      strip.title = text;
      strip.setAttribute("aria-label", text);
    }
  }

  stripX(n) {
    const inner = 8 * this.viewer.ratio; // half of the slider's thumb, so that the marker stands below it
    return inner + (this.last ? (n / this.last) * (this.strip.width - 2 * inner) : 0);
  }

  drawCurves() {
    const { width, height } = this.strip, ratio = this.viewer.ratio;
    Object.assign(this.stripBase, { width, height });
    const context = this.stripBase.getContext("2d");
    const top = Math.max(...this.curves.map((curve) => curve.top), 1e-9);
    context.lineWidth = 1.5 * ratio;
    for (const { values, color } of this.curves) {
      context.strokeStyle = color ?? this.viewer.ink;
      context.beginPath();
      values.forEach((value, n) => {
        if (value === null) return; // no such structure in this slice: a gap
        const y = height - 2 * ratio - (value / top) * (height - 4 * ratio);
        context[(values[n - 1] ?? null) === null ? "moveTo" : "lineTo"](this.stripX(n), y);
        context.lineTo(this.stripX(n) + ratio / 2, y);
      });
      context.stroke();
    }
  }

  scale() {
    const ratio = this.viewer.ratio;
    const width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.canvas.clientWidth * ratio * this.millimetres[1] / this.millimetres[0]));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      Object.assign(this.strip, { width, height: Math.round(36 * ratio) });
    }
    return [width, height];
  }

  // -------------------------------------------------------------------------------------------------------- events

  bind() {
    const { canvas, viewer } = this;
    const cut = this.plane.cut;
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => (this.drag = null));
    canvas.addEventListener("pointercancel", () => (this.drag = null));
    canvas.addEventListener("pointerleave", () => viewer.read(viewer.state.position, "cross-hair"));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.keyPressed(event));
    canvas.addEventListener("focus", () => viewer.activate(this));
    this.slider.addEventListener("focus", () => viewer.activate(this));
    this.slider.addEventListener("input", () => viewer.scrollTo(cut, Number(this.slider.value)));
    this.strip.addEventListener("pointerdown", (event) => {
      const inner = 8, fraction = (event.offsetX - inner) / (this.strip.clientWidth - 2 * inner);
      viewer.activate(this);
      viewer.scrollTo(cut, Math.round(fraction * this.last));
    });
  }

  /** A notch of a mouse's wheel is one slice; a touchpad's small steps add up. A page on the move is not stopped. */
  wheel(event) {
    if (event.ctrlKey || performance.now() - this.viewer.pageMoved < 300) return;
    event.preventDefault();
    this.viewer.activate(this);
    const delta = event.deltaY * (event.deltaMode === 0 ? 1 : 40);
    this.turned = Math.abs(delta) >= 40 ? Math.sign(delta) * 40 : (this.turned ?? 0) + delta;
    if (Math.abs(this.turned) < 40) return;
    this.viewer.scrollTo(this.plane.cut, this.at - Math.sign(this.turned));
    this.turned = 0;
    this.viewer.read(this.voxel(event), this.name);
  }

  voxel(event) {
    const column = Math.floor((event.offsetX / this.canvas.clientWidth) * this.size[0]);
    const row = Math.floor((event.offsetY / this.canvas.clientHeight) * this.size[1]);
    const clamp = (n, size) => Math.max(0, Math.min(size - 1, n));
    const voxel = [0, 0, 0];
    voxel[this.plane.cut] = this.at;
    voxel[this.plane.across] = clamp(this.flipped ? this.size[0] - 1 - column : column, this.size[0]);
    voxel[this.plane.up] = clamp(this.size[1] - 1 - row, this.size[1]);
    return voxel;
  }

  press(event) {
    const { state } = this.viewer;
    const mode = event.shiftKey || event.button === 2 ? "window" : state.drag;
    this.canvas.setPointerCapture(event.pointerId);
    this.viewer.activate(this);
    this.drag = { mode, x: event.offsetX, y: event.offsetY, at: this.at, window: [...state.window] };
    if (mode === "cross") this.viewer.moveTo(this.voxel(event));
  }

  move(event) {
    const { viewer, drag } = this;
    if (!drag) return viewer.read(this.voxel(event), this.name);
    const [right, down] = [event.offsetX - drag.x, event.offsetY - drag.y];
    if (drag.mode === "cross") viewer.moveTo(this.voxel(event));
    if (drag.mode === "scroll") viewer.scrollTo(this.plane.cut, drag.at - Math.round(down / 4));
    if (drag.mode === "window") viewer.dragWindow(drag.window, right, down);
    viewer.read(this.voxel(event), this.name);
  }

  keyPressed(event) {
    const { viewer, plane } = this;
    const sign = this.flipped ? -1 : 1, position = viewer.state.position;
    const nudge = (axis, by) => viewer.moveTo(position.map((at, n) => (n === axis ? at + by : at)));
    const scroll = (by) => viewer.scrollTo(plane.cut, this.at + by);
    const keys = {
      ArrowUp: () => scroll(1), ArrowRight: () => scroll(1), ArrowDown: () => scroll(-1), ArrowLeft: () => scroll(-1),
      PageUp: () => scroll(10), PageDown: () => scroll(-10), Home: () => scroll(-this.last), End: () => scroll(this.last),
      "Shift+ArrowUp": () => nudge(plane.up, 1), "Shift+ArrowDown": () => nudge(plane.up, -1),
      "Shift+ArrowRight": () => nudge(plane.across, sign), "Shift+ArrowLeft": () => nudge(plane.across, -sign),
      e: () => viewer.jumpToError(), n: () => viewer.jumpToStructure(1), p: () => viewer.jumpToStructure(-1),
      w: () => viewer.nextPreset(), m: () => viewer.set({ errors: !viewer.state.errors }),
      o: () => viewer.toggleOverlays(), "+": () => viewer.changeOpacity(0.1), "-": () => viewer.changeOpacity(-0.1),
    };
    const action = keys[(event.shiftKey && event.key.startsWith("Arrow") ? "Shift+" : "") + event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
    viewer.read(viewer.state.position, "cross-hair");
    viewer.announce(`${this.caption.textContent}. ${viewer.readout.textContent}`);
  }
}

const KEYS = "Wheel, slider, arrow keys, Page Up and Page Down, Home, End: scroll. Click or drag: move the cross-hair. " +
  "Shift with arrow keys: move the cross-hair within the slice. Shift with drag, or right button: window (right is " +
  "wider, up is darker). E: slice with the largest error. N, P: next and previous slice with the structure. W: next " +
  "window. M: error map. O: overlays on and off. + and -: opacity. Click on a strip: go to that slice.";

// ------------------------------------------------------------------------------------------------------- the viewer

class Viewer {
  constructor(host, meta) {
    this.meta = meta;
    this.host = host;
    host.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys pressed in here are not for the notebook
    const shadow = host.shadowRoot ?? host.attachShadow({ mode: "open" });
    this.root = make("div", { class: "viewer", role: "group", "aria-label": "Slice viewer" });
    shadow.replaceChildren(make("style", {}, meta.css), this.root);
    this.colors = Object.fromEntries(meta.structures.map(({ value, color }) => [value, color]));
    this.hasTruth = meta.hasTruth;
    this.hasPrediction = meta.predictions.length > 0;
    this.pageMoved = -Infinity;
  }

  start(volumes) {
    this.volumes = volumes;
    this.state = {
      position: [...this.meta.start], window: [...this.meta.window], layout: "all", convention: "radiological",
      truth: this.hasTruth ? (this.hasPrediction ? "contour" : "fill") : "off",
      predictionStyle: this.hasPrediction ? "fill" : "off", errors: false, opacity: 0.45, hidden: new Set(), shown: "0",
      strip: this.hasTruth && this.hasPrediction ? "dice" : "area", drag: "cross", structure: "any",
    };
    this.build();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.root);
    this.onScroll = () => (this.pageMoved = performance.now());
    document.addEventListener("scroll", this.onScroll, { capture: true, passive: true });
    this.read(this.state.position, "cross-hair");
    this.host.dataset.ready = "true";
  }

  close() {
    this.observer?.disconnect();
    document.removeEventListener("scroll", this.onScroll, { capture: true });
    this.volumes?.close?.();
  }

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  get compares() {
    return this.state.shown === "both";
  }

  // ------------------------------------------------------------------------------------------------------ controls

  build() {
    this.panels = make("div", { class: "panels" });
    this.readout = make("output", { class: "readout" });
    this.status = make("p", { class: "hidden", role: "status", "aria-live": "polite" });
    this.message = make("p", { class: "note", role: "status" });
    this.root.replaceChildren(this.toolbar(), this.panels, this.readout, this.legend(), this.footer(), this.message, this.status);
    this.arrange();
  }

  toolbar() {
    const { meta, state } = this;
    const set = (name) => (value) => this.set({ [name]: value });
    const bar = make("div", { class: "bar", role: "toolbar", "aria-label": "What is shown" });
    const planes = [["all", "three planes"], ...Object.keys(PLANES).map((name) => [name, name])];
    bar.append(labelled("planes", choice("planes", planes, state.layout, (value) => this.set({ layout: value }, true))));
    const conventions = [["radiological", "patient's right on the left"], ["neurological", "patient's right on the right"]];
    bar.append(labelled("sides", choice("sides", conventions, state.convention, set("convention"))));
    bar.append(...this.windowControls());
    bar.append(labelled("drag", choice("drag", [["cross", "cross-hair"], ["scroll", "scroll"], ["window", "window"]], state.drag, set("drag"))));
    if (this.hasTruth) {
      const styles = [["contour", "outline"], ["fill", "filled"], ["off", "off"]];
      bar.append(labelled("truth", (this.truthChoice = choice("truth", styles, state.truth, set("truth")))));
    }
    if (this.hasPrediction) bar.append(...this.predictionControls());
    if (this.hasTruth || this.hasPrediction) bar.append(...this.overlayControls());
    return bar;
  }

  windowControls() {
    const presets = this.meta.presets.map(({ name }, n) => [String(n), name]);
    this.presetChoice = choice("window", [...presets, ["own", "own"]], "own", (value) => {
      if (value !== "own") this.setWindow(...this.meta.presets[Number(value)].window);
    });
    this.limits = ["from", "to"].map((name, n) => make("input", {
      type: "number", step: "any", "aria-label": `window ${name}, ${this.meta.unit}`,
      onchange: () => this.setWindow(...this.state.window.map((limit, m) => (m === n ? Number(this.limits[n].value) : limit))),
    }));
    const range = make("span", { class: "range" }, this.limits[0], " to ", this.limits[1], ` ${this.meta.unit}`);
    return [labelled("window", this.presetChoice), range];
  }

  predictionControls() {
    const { meta, state } = this;
    const styles = [["fill", "filled"], ["contour", "outline"], ["off", "off"]];
    this.predictionChoice = choice("prediction", styles, state.predictionStyle, (value) => this.set({ predictionStyle: value }));
    const controls = [labelled("prediction", this.predictionChoice)];
    if (meta.predictions.length > 1) {
      const names = [...meta.predictions.map((name, n) => [String(n), name]), ["both", "side by side"]];
      controls.push(labelled("of", choice("which prediction", names, state.shown, (value) => this.set({ shown: value }, true))));
    }
    if (this.hasTruth) {
      this.errorBox = make("input", { type: "checkbox", onchange: () => this.set({ errors: this.errorBox.checked }) });
      controls.push(make("label", {}, this.errorBox, make("span", {}, "error map")));
    }
    return controls;
  }

  overlayControls() {
    const { state, meta } = this;
    this.opacitySlider = make("input", {
      type: "range", min: "0", max: "1", step: "0.05", value: String(state.opacity), "aria-label": "opacity",
      oninput: () => this.set({ opacity: Number(this.opacitySlider.value) }),
    });
    const structures = [["any", "any structure"], ...meta.structures.map(({ value, name }) => [String(value), name])];
    const controls = [
      labelled("opacity", this.opacitySlider),
      make("span", { class: "group" },
        make("button", { type: "button", onclick: () => this.jumpToStructure(-1), "aria-label": "previous slice with the structure" }, "\u25c0"),
        choice("structure to jump to", structures, state.structure, (value) => this.set({ structure: value })),
        make("button", { type: "button", onclick: () => this.jumpToStructure(1), "aria-label": "next slice with the structure" }, "\u25b6")),
    ];
    if (this.hasTruth && this.hasPrediction) {
      controls.push(make("button", { type: "button", onclick: () => this.jumpToError() }, "largest error"));
      const kinds = [["dice", "Dice"], ["error", "error area"], ["area", "area of the truth"]];
      controls.push(labelled("strip", choice("strip", kinds, state.strip, (value) => this.set({ strip: value }))));
    }
    return controls;
  }

  legend() {
    const { meta } = this;
    if (!this.hasTruth && !this.hasPrediction) return make("div");
    const head = ["shown", "structure"];
    if (this.hasTruth) head.push("truth, mL");
    for (const name of meta.predictions) head.push(`${name}, mL`, ...(this.hasTruth ? ["Dice"] : []));
    const table = make("table", { class: "legend" }, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))));
    const body = make("tbody");
    for (const structure of meta.structures) body.append(this.legendRow(structure));
    table.append(body);
    const errors = make("p", { class: "errors", hidden: true });
    for (const { name, color } of meta.errors) errors.append(swatch(color), `${name} `);
    this.errorLegend = errors;
    return make("div", {}, table, errors);
  }

  legendRow({ value, name, color, truth, predictions }) {
    const box = make("input", {
      type: "checkbox", checked: true, "aria-label": `show ${name}`,
      onchange: () => {
        const hidden = new Set(this.state.hidden);
        hidden[box.checked ? "delete" : "add"](value);
        this.set({ hidden });
      },
    });
    const cells = [make("td", {}, box), make("th", { scope: "row" }, swatch(color), name)];
    if (this.hasTruth) cells.push(make("td", {}, truth.toFixed(0)));
    for (const { volume, dice } of predictions) {
      cells.push(make("td", {}, volume.toFixed(0)));
      if (this.hasTruth) cells.push(make("td", {}, dice === null ? "none" : dice.toFixed(3)));
    }
    return make("tr", {}, ...cells);
  }

  footer() {
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const bar = make("div", { class: "bar", role: "toolbar", "aria-label": "Save" });
    bar.append(button("save picture", () => this.savePicture()), button("copy picture", () => this.copyPicture()));
    bar.append(button("save as page", () => this.savePage()));
    bar.append(make("details", {}, make("summary", {}, "keys"), make("p", {}, KEYS)));
    const note = make("p", { class: "note" }, this.meta.note);
    return make("div", {}, bar, note);
  }

  /** Make the panels that the layout needs: a row for each prediction that is compared. */
  arrange() {
    const { state, meta } = this;
    const names = state.layout === "all" ? Object.keys(PLANES) : [state.layout];
    const shown = this.compares ? meta.predictions.map((_, n) => n) : [this.hasPrediction ? Number(state.shown) : null];
    this.list = shown.flatMap((prediction) => names.map((name) => new Panel(this, name, prediction)));
    const columns = names.length > 1 ? names.map((name) => this.list.find((panel) => panel.name === name).millimetres[0]) : shown.map(() => 1);
    this.panels.style.gridTemplateColumns = columns.map((width) => `minmax(0, ${width}fr)`).join(" ");
    this.panels.classList.toggle("single", this.list.length === 1);
    this.panels.replaceChildren(...this.list.map((panel) => panel.element));
    this.active = this.list.find((panel) => panel.name === this.active?.name) ?? this.list[0];
    this.activate(this.active);
    this.draw();
  }

  // --------------------------------------------------------------------------------------------------------- state

  set(change, rearrange = false) {
    Object.assign(this.state, change);
    this.syncControls();
    if (rearrange) this.arrange();
    else this.draw();
  }

  draw() {
    this.ink = getComputedStyle(this.root).color;
    for (const panel of this.list) panel.draw();
    const { progress } = this.volumes;
    if (progress < 1) this.message.textContent = `full volume: ${Math.round(100 * progress)} % loaded`;
    else if (this.message.textContent.startsWith("full volume")) this.message.textContent = "";
    this.host.dataset.loaded = progress.toFixed(3);
    if (!this.presetsShown) this.syncControls();
    this.presetsShown = true;
  }

  syncControls() {
    const { state, meta } = this;
    this.limits.forEach((input, n) => (input.value = String(Number(state.window[n].toPrecision(6)))));
    const preset = meta.presets.findIndex(({ window: [low, high] }) => low === state.window[0] && high === state.window[1]);
    this.presetChoice.value = preset < 0 ? "own" : String(preset);
    if (this.errorBox) this.errorBox.checked = state.errors;
    if (this.errorLegend) this.errorLegend.hidden = !state.errors;
    if (this.truthChoice) this.truthChoice.value = state.truth;
    if (this.predictionChoice) this.predictionChoice.value = state.predictionStyle;
    if (this.opacitySlider) this.opacitySlider.value = String(state.opacity);
    this.panels.dataset.drag = state.drag;
  }

  look() {
    const { state, colors, meta } = this;
    const visible = new Uint8Array(256), palette = [];
    for (const { value } of meta.structures) {
      visible[value] = state.hidden.has(value) ? 0 : value;
      palette[value] = rgb(colors[value]);
    }
    [palette[MISSED], palette[SPILLED]] = meta.errors.map(({ color }) => rgb(color));
    return {
      window: state.window, errors: state.errors, opacity: state.errors ? Math.max(state.opacity, 0.75) : state.opacity,
      truthFilled: state.truth === "fill", predictionFilled: state.predictionStyle === "fill", visible, palette,
    };
  }

  activate(panel) {
    this.active = panel;
    for (const other of this.list) other.element.classList.toggle("active", other === panel);
  }

  moveTo(voxel) {
    this.set({ position: voxel.map((at, axis) => Math.max(0, Math.min(this.meta.shape[axis] - 1, at))) });
  }

  scrollTo(axis, at) {
    this.moveTo(this.state.position.map((old, n) => (n === axis ? at : old)));
  }

  setWindow(low, high) {
    const smallest = (this.meta.range[1] - this.meta.range[0]) / 1000;
    if (!Number.isFinite(low) || !Number.isFinite(high) || high - low < smallest) {
      this.message.textContent = `The window's end must lie above its start by ${Number(smallest.toPrecision(2))} or more.`;
      return this.syncControls();
    }
    this.message.textContent = "";
    this.set({ window: [low, high] });
  }

  dragWindow([low, high], right, down) {
    const range = this.meta.range[1] - this.meta.range[0], perPixel = Math.min(range, 4 * (high - low)) / 500;
    const width = Math.max(range / 500, high - low + right * perPixel), level = (low + high) / 2 - down * perPixel;
    const whole = range >= 100 ? Math.round : (value) => value;
    this.setWindow(whole(level - width / 2), whole(level + width / 2));
  }

  nextPreset() {
    const now = Number(this.presetChoice.value);
    const next = Number.isNaN(now) ? 0 : (now + 1) % this.meta.presets.length;
    this.setWindow(...this.meta.presets[next].window);
  }

  toggleOverlays() {
    const { state } = this;
    if (state.truth !== "off" || state.predictionStyle !== "off" || state.errors) {
      this.stored = { truth: state.truth, predictionStyle: state.predictionStyle, errors: state.errors };
      this.set({ truth: "off", predictionStyle: "off", errors: false });
    } else if (this.stored) this.set(this.stored);
  }

  changeOpacity(by) {
    this.set({ opacity: Math.max(0, Math.min(1, Math.round((this.state.opacity + by) * 20) / 20)) });
  }

  // ------------------------------------------------------------------------------------------------- slice by slice

  /** For each slice of a plane the voxels in truth, in the prediction, in both: of the structures that are shown. */
  counts(name, prediction) {
    const all = this.meta.slices[name][prediction ?? 0];
    return this.meta.structures.map(({ value }, n) => ({ value, rows: all.map((row) => row[n]) }))
      .filter(({ value }) => !this.state.hidden.has(value));
  }

  /** Voxels of a slice in cm2. */
  area(name, voxels) {
    return (voxels * this.meta.voxel) / this.meta.spacing[PLANES[name].cut] / 100;
  }

  curves(name, prediction) {
    if (!this.hasTruth && !this.hasPrediction) return [];
    const counts = this.counts(name, prediction), kind = this.state.strip;
    if (kind === "error") {
      const values = this.errorAreas(name, prediction);
      return [{ values, top: Math.max(...values) }];
    }
    const main = this.hasTruth ? 0 : 1;
    return counts.map(({ value, rows }) => {
      const values = rows.map((row) => (kind === "dice" ? (row[0] + row[1] ? (2 * row[2]) / (row[0] + row[1]) : null) : this.area(name, row[main])));
      return { value, values, color: this.colors[value], top: kind === "dice" ? 1 : Math.max(...values) };
    });
  }

  errorAreas(name, prediction) {
    const counts = this.counts(name, prediction);
    return this.meta.slices[name][prediction ?? 0].map((_, n) =>
      this.area(name, counts.reduce((sum, { rows }) => sum + rows[n][0] + rows[n][1] - 2 * rows[n][2], 0)));
  }

  stripText(curves, at) {
    const kind = this.state.strip;
    const number = (value) => (value == null ? "none" : kind === "dice" ? value.toFixed(3) : `${value.toFixed(1)} cm\u00b2`);
    if (!curves.length) return "";
    if (kind === "error") return `error area of this slice ${number(curves[0].values[at])}, largest ${number(curves[0].top)}`;
    const name = (value) => this.structureName(value);
    return `${kind === "dice" ? "Dice" : "area"} of this slice: ` + curves.map(({ value, values }) => `${name(value)} ${number(values[at])}`).join(", ");
  }

  jumpToError() {
    if (!this.hasTruth || !this.hasPrediction) return;
    const areas = this.errorAreas(this.active.name, this.active.prediction);
    this.scrollTo(this.active.plane.cut, areas.indexOf(Math.max(...areas)));
    this.read(this.state.position, "cross-hair");
  }

  jumpToStructure(direction) {
    if (!this.hasTruth && !this.hasPrediction) return;
    const wanted = this.state.structure, main = this.hasTruth ? 0 : 1, { name, plane, prediction, last } = this.active;
    const counts = this.counts(name, prediction).filter(({ value }) => wanted === "any" || value === Number(wanted));
    for (let at = this.active.at + direction; at >= 0 && at <= last; at += direction) {
      if (!counts.some(({ rows }) => rows[at][main])) continue;
      this.scrollTo(plane.cut, at);
      return this.read(this.state.position, "cross-hair");
    }
    this.announce("There is no further slice with it.");
  }

  // ------------------------------------------------------------------------------------------------------- reading

  read(voxel, where) {
    const { meta, volumes } = this;
    const map = (matrix) => [0, 1, 2].map((row) => matrix[row][3] + voxel.reduce((sum, at, n) => sum + matrix[row][n] * at, 0));
    const millimetres = map(meta.affine).map((value) => (Math.abs(value) < 0.05 ? 0 : value).toFixed(1));
    const element = map(meta.toArray).map((value) => rounded(Math.round(value * 2) / 2));
    const parts = [where, `voxel [${element.join(", ")}]`, `R ${millimetres[0]}, A ${millimetres[1]}, S ${millimetres[2]} mm`];
    if (!volumes.isKnown(voxel)) parts.push("loading");
    else {
      parts.push(`${Number(volumes.value(voxel).toPrecision(7))} ${meta.unit}`);
      const names = [...(this.hasTruth ? ["truth"] : []), ...meta.predictions];
      names.forEach((name, n) => parts.push(`${name}: ${this.structureName(volumes.labels[n][volumes.index(voxel)])}`));
    }
    this.readout.textContent = parts.join(" \u00b7 ");
  }

  structureName(value) {
    return this.meta.structures.find((structure) => structure.value === value)?.name ?? "background";
  }

  announce(text) {
    this.status.textContent = text;
  }

  // -------------------------------------------------------------------------------------------------------- saving

  /** All panels as they are on the screen, with captions and legend, as one picture. */
  picture() {
    const gap = 10 * this.ratio, line = 18 * this.ratio, boxes = this.list.map((panel) => panel.canvas.getBoundingClientRect());
    const left = Math.min(...boxes.map((box) => box.left)), top = Math.min(...boxes.map((box) => box.top));
    const right = Math.max(...boxes.map((box) => box.right)), bottom = Math.max(...boxes.map((box) => box.bottom));
    const canvas = make("canvas", {}), context = canvas.getContext("2d");
    const rows = this.legendLines();
    canvas.width = Math.max(420 * this.ratio, (right - left) * this.ratio + 2 * gap);
    canvas.height = (bottom - top) * this.ratio + 2 * gap + line * (rows.length + 1.5);
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "black";
    context.font = `${12 * this.ratio}px sans-serif`;
    this.list.forEach((panel, n) => {
      const [x, y] = [(boxes[n].left - left) * this.ratio + gap, (boxes[n].top - top) * this.ratio + gap];
      context.drawImage(panel.canvas, x, y);
      context.fillText(panel.caption.textContent, x, y + panel.canvas.height + 14 * this.ratio);
    });
    rows.forEach(({ text, color }, n) => {
      const y = canvas.height - gap - line * (rows.length - 1 - n);
      if (color) context.fillStyle = color, context.fillRect(gap, y - 10 * this.ratio, 12 * this.ratio, 12 * this.ratio);
      context.fillStyle = "black";
      context.fillText(text, gap + (color ? 18 * this.ratio : 0), y);
    });
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  legendLines() {
    const { meta, state } = this;
    const lines = [{ text: `window ${state.window.map((limit) => Number(limit.toPrecision(6))).join(" to ")} ${meta.unit}` }];
    if (state.errors) return [...lines, ...meta.errors.map(({ name, color }) => ({ text: name, color }))];
    if (state.truth === "off" && state.predictionStyle === "off") return lines;
    for (const { value, name, color, predictions } of meta.structures) {
      if (state.hidden.has(value)) continue;
      const dices = predictions.map(({ dice }, n) => (dice == null ? "" : `, Dice of ${meta.predictions[n]} ${dice.toFixed(3)}`));
      lines.push({ text: name + dices.join(""), color });
    }
    return lines;
  }

  async savePicture() {
    download(await this.picture(), "slices.png");
  }

  async copyPicture() {
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": this.picture() })]);
      this.message.textContent = "The picture is in the clipboard.";
    } catch (error) {
      this.message.textContent = `The browser does not let this page use the clipboard (${error.message}). Save the picture instead.`;
    }
  }

  async savePage() {
    this.message.textContent = "The page is being made.";
    download(new Blob([await this.page()], { type: "text/html" }), "slices.html");
    this.message.textContent = "";
  }
}

function swatch(color) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  element.style.backgroundColor = color;
  return element;
}

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ------------------------------------------------------------------------------------------------------- the two lives

/** The keys of the live viewers of this document, each with how many there are: stored pages look here. */
const live = (globalThis.liveSliceViewers ??= new Map());

/** With a kernel: called by anywidget for each view of the widget. */
async function render({ model, el }) {
  const own = await model.widget_manager?.get_model(model.get("own_id"));
  if (own?.comm_live === false) return; // of a saved notebook, whose kernel is gone: the page beside it is shown
  if (own) listen(own);
  const host = make("div", { class: "slice-viewer" }), key = model.get("key");
  el.append(host);
  live.set(key, (live.get(key) ?? 0) + 1);
  for (const stored of document.querySelectorAll("[data-slice-viewer]")) hideBesideLive(stored);
  const viewer = new Viewer(host, model.get("meta"));
  let waiting = false;
  const onArrival = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      viewer.draw();
    });
  };
  viewer.start(new LiveVolumes(model, model.get("meta"), onArrival));
  viewer.page = () => new Promise((resolve) => {
    const receive = (content) => {
      if (content.page === undefined) return;
      model.off("msg:custom", receive);
      resolve(content.page);
    };
    model.on("msg:custom", receive);
    model.send({ want: "page" });
  });
  return () => {
    live.set(key, live.get(key) - 1);
    viewer.close();
  };
}

/**
 * Take messages from the kernel without anywidget in between. It (0.11) drops all messages to a model that took more than
 * two seconds to load, as one does in a busy browser; the viewer would have its first slices and wait for the rest for ever.
 */
function listen(own) {
  const handle = Object.getPrototypeOf(Object.getPrototypeOf(own))?._handle_comm_msg;
  if (handle && own.comm?.on_msg) own.comm.on_msg((message) => handle.call(own, message));
}

/** A cell's output holds the live viewer and the page; only one of them is to be seen. */
function hideBesideLive(stored) {
  if (!live.get(stored.querySelector(".slice-viewer")?.dataset.key)) return false;
  (stored.closest(".jp-OutputArea-child") ?? stored).style.display = "none"; // JupyterLab: with its prompt and its space
  return true;
}

/** Without a kernel: bring the stored viewers of this page to life, each once. */
async function wake() {
  for (const stored of document.querySelectorAll("[data-slice-viewer]:not([data-awake])")) {
    stored.dataset.awake = "true";
    if (hideBesideLive(stored)) continue;
    const meta = JSON.parse(stored.querySelector(".meta").textContent);
    const host = stored.querySelector(".slice-viewer");
    const source = stored.cloneNode(true);
    source.removeAttribute("data-awake");
    const viewer = new Viewer(host, meta);
    viewer.page = () => `<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
      `<title>Slice viewer</title>\n<body><main>${source.outerHTML}</main></body></html>\n`;
    viewer.start(await unpack(meta, stored.querySelector(".volume").textContent));
  }
}

export default { render };
