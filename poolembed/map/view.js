// What part of the map is to be seen, and how the reader moves it: with mouse, fingers or keyboard.

class View {
  /** @param canvas - that the map is on
   *  @param panel, player - the cards that cover parts of it
   *  @param x, y - places of the songs in the unit square
   *  @param redraw - called whenever something else is to be seen */
  constructor(canvas, panel, player, x, y, redraw) {
    Object.assign(this, { canvas, panel, player, xs: x, ys: y, redraw });
    [this.k, this.x, this.y] = [1, 0, 0]; // CSS pixel = place * k + (x, y)
    this.whole = 1; // k where all songs just fit
    this.flight = 0;
  }

  /** Where a song is in the window. */
  screen(i) {
    return [this.xs[i] * this.k + this.x, this.ys[i] * this.k + this.y];
  }

  /** What place of the map is at a point of the window. */
  place(x, y) {
    return [(x - this.x) / this.k, (y - this.y) / this.k];
  }

  /** The part of the window that the cards leave free. */
  room() {
    const width = this.canvas.clientWidth;
    const height = this.player.hidden ? this.canvas.clientHeight : this.player.getBoundingClientRect().top;
    const card = this.panel.getBoundingClientRect();
    const beside = card.width < width / 2;
    const [left, top] = beside ? [card.right + 24, 24] : [24, card.bottom + 24];
    const right = beside ? 76 : 24; // of the zoom buttons
    return { left, top, width: Math.max(80, width - left - right), height: Math.max(80, height - top - 24) };
  }

  /** A place in the middle of what is free, at a scale. */
  around(px, py, k) {
    const room = this.room();
    return { k, x: room.left + room.width / 2 - px * k, y: room.top + room.height / 2 - py * k };
  }

  /** These songs as large as they fit, or all. */
  fit(songs = null) {
    let [left, top, right, bottom] = [1, 1, 0, 0];
    for (const i of songs ?? this.xs.keys()) {
      [left, right] = [Math.min(left, this.xs[i]), Math.max(right, this.xs[i])];
      [top, bottom] = [Math.min(top, this.ys[i]), Math.max(bottom, this.ys[i])];
    }
    const room = this.room();
    const k = Math.min(room.width / Math.max(right - left, 1e-3), room.height / Math.max(bottom - top, 1e-3));
    return this.around((left + right) / 2, (top + bottom) / 2, songs ? Math.min(k * 0.8, this.whole * 12) : k);
  }

  /** The window has another size. */
  resized() {
    const seen = this.k === this.whole;
    const all = this.fit();
    this.whole = all.k;
    if (seen) this.move(all);
  }

  move(to) {
    cancelAnimationFrame(this.flight);
    Object.assign(this, to);
    this.redraw();
  }

  /** Move there in a quarter of a second, or at once if the reader wants no motion. */
  fly(to) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.move(to);
    const from = { k: this.k, x: this.x, y: this.y };
    const began = performance.now();
    cancelAnimationFrame(this.flight);
    const step = (now) => {
      const part = Math.min(1, Math.max(0, (now - began) / 250));
      for (const name of ["k", "x", "y"]) {
        this[name] = part < 1 ? from[name] + (to[name] - from[name]) * part * (2 - part) : to[name];
      }
      this.redraw();
      if (part < 1) this.flight = requestAnimationFrame(step);
    };
    this.flight = requestAnimationFrame(step);
  }

  /** Move to a song only if it is not to be seen. */
  reveal(i) {
    const [x, y] = this.screen(i);
    const { left, top, width, height } = this.room();
    const seen = x > left && x < left + width && y > top && y < top + height;
    if (!seen) this.fly(this.around(this.xs[i], this.ys[i], this.k));
  }

  /** Zoom by a factor, with a point of the window held where it is. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const k = Math.max(this.whole / 2, Math.min(this.whole * 200, this.k * factor));
    this.move({ k, x: x - (x - this.x) * (k / this.k), y: y - (y - this.y) * (k / this.k) });
  }

  /** @param hover, click - called with a point of the window; hover also with none, when the pointer has left or moves
   *    the map */
  listen(hover, click) {
    const { canvas } = this;
    const held = new Map(); // pointers that are down
    let travelled = 0; // pixels, since the first of them was
    const middle = () => {
      const [a, b = a] = [...held.values()];
      return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, spread: Math.hypot(a.x - b.x, a.y - b.y) };
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      if (!held.size) travelled = 0;
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return hover(event.clientX, event.clientY);
      const before = middle();
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const now = middle();
      travelled += Math.hypot(now.x - before.x, now.y - before.y) + Math.abs(now.spread - before.spread);
      if (travelled < 4) return;
      hover();
      canvas.classList.add("moving");
      this.move({ x: this.x + now.x - before.x, y: this.y + now.y - before.y });
      if (before.spread && now.spread) this.zoom(now.spread / before.spread, now.x, now.y);
    });
    const release = (event) => {
      if (!held.delete(event.pointerId) || held.size) return;
      canvas.classList.remove("moving");
      if (event.type === "pointerup" && travelled < 4) click(event.clientX, event.clientY);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => hover());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      hover();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      this.zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX, event.clientY); // ctrl: a pinch
    }, { passive: false });
    const steps = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) this.move({ x: this.x + steps[event.key][0], y: this.y + steps[event.key][1] });
      else if (event.key === "+" || event.key === "=") this.zoom(1.4);
      else if (event.key === "-") this.zoom(1 / 1.4);
      else if (event.key === "0") this.fly(this.fit());
      else return;
      event.preventDefault();
    });
  }
}
