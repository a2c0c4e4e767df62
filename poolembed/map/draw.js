// Where the dots are, and how they get onto the canvas. Places are in a unit square; `view` maps them to CSS pixels.
"use strict";

const DIM = 255; // the class of a song that the search or the legend leaves out

/** Equal cells over the unit square, each with its songs: what is in view, and what is under the pointer. */
class Grid {
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.side = Math.max(1, Math.min(512, Math.round(Math.sqrt(x.length / 4))));
    this.first = new Uint32Array(this.side * this.side + 1); // of each cell in `order`, row by row
    this.order = new Uint32Array(x.length);
    const cells = Uint32Array.from(x, (_, i) => this.at(y[i]) * this.side + this.at(x[i]));
    for (const cell of cells) this.first[cell + 1]++;
    for (let cell = 1; cell < this.first.length; cell++) this.first[cell] += this.first[cell - 1];
    const next = this.first.slice();
    cells.forEach((cell, i) => { this.order[next[cell]++] = i; });
  }

  at(place) {
    return Math.max(0, Math.min(this.side - 1, Math.floor(place * this.side)));
  }

  /** Stretches of `order` that hold every song of a box, and few others. */
  *within(left, top, right, bottom) {
    for (let row = this.at(top); row <= this.at(bottom); row++) {
      const start = this.first[row * this.side + this.at(left)];
      const end = this.first[row * this.side + this.at(right) + 1];
      if (end > start) yield [start, end];
    }
  }

  /** The nearest song of those that `allowed` lets pass, or -1 where none is within the radius. */
  nearest(x, y, radius, allowed) {
    let best = -1;
    let closest = radius * radius;
    for (const [start, end] of this.within(x - radius, y - radius, x + radius, y + radius)) {
      for (let at = start; at < end; at++) {
        const i = this.order[at];
        const away = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
        if (away <= closest && allowed(i)) {
          closest = away;
          best = i;
        }
      }
    }
    return best;
  }
}

/** Round dots, blended pixel by pixel: for many small dots that is faster than the canvas's own shapes, and needs no
 *  graphics card. Each dot is a stamp: pixels and how much of them it covers, at a quarter of a pixel's precision. */
class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.margin = 32; // around what is seen, so that no stamp has to be cut
    this.stamps = new Map();
  }

  resize(width, height) {
    const most = Math.sqrt(6e6 / (width * height)); // pixels; beyond that sharpness costs smoothness
    this.ratio = Math.max(1, Math.min(window.devicePixelRatio || 1, most));
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    this.stride = this.canvas.width + 2 * this.margin;
    this.image = this.context.createImageData(this.stride, this.canvas.height + 2 * this.margin);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.stamps.clear();
  }

  clear(paper) {
    this.pixels.fill(paper);
  }

  /** Stamps of one size for 4 x 4 places inside a pixel: pairs of offset and weight out of 256. */
  stamp(radius, opacity) {
    const key = `${radius.toFixed(1)} ${opacity}`;
    if (!this.stamps.has(key)) {
      const reach = Math.ceil(radius + 1);
      const made = [];
      for (let phase = 0; phase < 16; phase++) {
        const [cx, cy] = [((phase & 3) + 0.5) / 4, ((phase >> 2) + 0.5) / 4];
        const pairs = [];
        for (let row = -reach; row <= reach; row++) {
          for (let column = -reach; column <= reach; column++) {
            const covered = radius + 0.5 - Math.hypot(column + 0.5 - cx, row + 0.5 - cy);
            const weight = Math.round(256 * opacity * Math.max(0, Math.min(1, covered)));
            if (weight > 4) pairs.push(row * this.stride + column, weight);
          }
        }
        made.push(Int32Array.from(pairs));
      }
      if (this.stamps.size > 64) this.stamps.clear();
      this.stamps.set(key, made);
    }
    return this.stamps.get(key);
  }

  /** Draw the songs in view.
   *  @param grid - where they are
   *  @param view - k, x, y: CSS pixel = place * k + (x, y)
   *  @param classes - of each song; `table` has a colour for each
   *  @param layers - of {dim: songs that are left out, or those that are not; radius in CSS pixels; opacity; colour:
   *    for all of them, instead of their own} */
  dots(grid, view, classes, table, layers) {
    const { pixels, stride, margin, ratio } = this;
    const { x, y, order } = grid;
    const [k, dx, dy] = [view.k * ratio, view.x * ratio, view.y * ratio];
    const [width, height] = [this.canvas.width + margin, this.canvas.height + margin];
    const box = [-dx / k, -dy / k, (width - dx) / k, (height - dy) / k];
    for (const { dim, radius, opacity, colour } of layers) {
      const stamps = this.stamp(Math.min(margin - 2, radius * ratio), opacity);
      const edge = Math.ceil(radius * ratio + 2);
      for (const [start, end] of grid.within(...box)) {
        for (let at = start; at < end; at++) {
          const i = order[at];
          if ((classes[i] === DIM) !== dim) continue;
          const px = x[i] * k + dx;
          const py = y[i] * k + dy;
          if (px < -edge || py < -edge || px > width - margin + edge || py > height - margin + edge) continue;
          const [column, row] = [Math.floor(px), Math.floor(py)];
          const stamp = stamps[((py - row) * 4 | 0) * 4 + ((px - column) * 4 | 0)];
          const origin = (row + margin) * stride + column + margin;
          const own = colour ?? table[classes[i]];
          const [ownRedBlue, ownGreen] = [own & 0xff00ff, (own >>> 8) & 0xff];
          for (let j = 0; j < stamp.length; j += 2) {
            const weight = stamp[j + 1];
            const to = origin + stamp[j];
            const old = pixels[to];
            const redBlue = Math.imul(old & 0xff00ff, 256 - weight) + Math.imul(ownRedBlue, weight);
            const green = ((old >>> 8) & 0xff) * (256 - weight) + ownGreen * weight;
            pixels[to] = 0xff000000 | ((redBlue >>> 8) & 0xff00ff) | (green & 0xff00);
          }
        }
      }
    }
  }

  show() {
    this.context.putImageData(this.image, -this.margin, -this.margin);
  }

  /** A circle around a place in CSS pixels, on top of the dots. */
  ring(x, y, radius, width, colour) {
    const { context, ratio } = this;
    context.beginPath();
    context.arc(x * ratio, y * ratio, radius * ratio, 0, 2 * Math.PI);
    context.lineWidth = width * ratio;
    context.strokeStyle = colour;
    context.stroke();
  }

  /** Texts beside dots at places in CSS pixels; long ones are cut, those that would cover a dot or a text left out. */
  labels(texts, radius, { font, ink, paper }) {
    const { context, ratio } = this;
    const reach = radius * ratio;
    const taken = texts.map(({ at }) => [-reach, -reach, reach, reach].map((edge, i) => at[i % 2] * ratio + edge));
    context.font = `${12 * ratio}px ${font}`;
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 3 * ratio;
    for (const { text, at } of texts) {
      const short = text.length > 32 ? `${text.slice(0, 31)}…` : text;
      const width = context.measureText(short).width;
      const [away, middle] = [reach + 5 * ratio, at[1] * ratio];
      const right = at[0] * ratio + away;
      const left = right + width < this.canvas.width ? right : at[0] * ratio - away - width;
      const box = [left, middle - 7 * ratio, left + width, middle + 7 * ratio];
      if (taken.some(([l, t, r, b]) => box[0] < r && l < box[2] && box[1] < b && t < box[3])) continue;
      taken.push(box);
      context.strokeStyle = paper;
      context.strokeText(short, left, middle);
      context.fillStyle = ink;
      context.fillText(short, left, middle);
    }
  }
}
