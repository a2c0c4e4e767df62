// The page: data unpacked, songs drawn, found, coloured and played. What comes from songs only ever becomes text.
const LABELS = 80; // dots in view up to which they are labelled
const by = (id) => document.getElementById(id);
const make = (tag) => document.createElement(tag);

/** The songs: JSON about them, then arrays, compressed (see page.py). */
async function unpack() {
  const text = atob(by("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const start = 4 + new DataView(buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
  const kinds = { i1: Int8Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  for (const [name, [kind, offset, length]] of Object.entries(data.arrays)) {
    data[name] = new kinds[kind](buffer, start + offset, length);
  }
  return data;
}

function start(data) {
  const songs = describe(data);
  const [canvas, audio, tip] = ["map", "audio", "tip"].map(by);
  const x = Float32Array.from(songs.rows, (i) => data.places[2 * i] / 65535);
  const y = Float32Array.from(songs.rows, (i) => data.places[2 * i + 1] / 65535);
  const grid = new Grid(x, y);
  const painter = new Painter(canvas);
  const classes = new Uint8Array(data.count); // of each song's colour, or DIM
  const state = { hovered: -1, played: -1, column: null, only: null, found: null, dirty: false };
  const redraw = () => {
    if (!state.dirty) requestAnimationFrame(draw);
    state.dirty = true;
  };
  const view = new View(canvas, by("panel"), by("player"), x, y, redraw);

  // ---- drawing

  let theme;
  function readTheme() {
    const style = getComputedStyle(document.documentElement);
    const pixel = (name) => {
      const [r, g, b] = style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
      return 0xff000000 | (b << 16) | (g << 8) | r;
    };
    const table = new Int32Array(256).fill(pixel("--other"));
    for (let c = 0; c < data.colours; c++) table[c] = pixel(`--c${c}`);
    const [ink, paper, accent, font] = ["--ink", "--paper", "--accent", "--font"].map((n) => style.getPropertyValue(n));
    theme = { table, ink, paper, accent, font, background: pixel("--paper") };
    redraw();
  }

  /** Of a dot, in CSS pixels. */
  function radius() {
    const few = Math.max(1.6, 7.5 - 1.25 * Math.log10(data.count));
    return Math.min(9, few * Math.max(1, view.k / view.whole) ** 0.4);
  }

  function draw() {
    state.dirty = false;
    const r = radius();
    const filtered = state.found !== null || state.only !== null;
    const layers = [];
    if (filtered) layers.push({ dim: true, radius: r * 0.8, opacity: 0.22 });
    if (r > 3) layers.push({ dim: false, radius: r + 1, opacity: 0.8, colour: theme.background }); // sets dots apart
    layers.push({ dim: false, radius: filtered ? r + 0.6 : r, opacity: r > 3 ? 0.92 : 0.7 });
    painter.clear(theme.background);
    painter.dots(grid, view, classes, theme.table, layers);
    painter.show();
    if (state.played >= 0) {
      for (const i of songs.like(state.played)) painter.ring(...view.screen(i), r + 3, 1.5, theme.accent);
      painter.ring(...view.screen(state.played), r + 4, 3, theme.accent);
    }
    if (state.hovered >= 0) painter.ring(...view.screen(state.hovered), r + 2, 2, theme.ink);
    label(r);
  }

  /** Titles beside the dots, where only a few are in view; one that would cover another is left out. */
  function label(r) {
    const names = [];
    const { left, top, width, height } = view.room();
    const [from, to] = [view.place(left, top), view.place(left + width, top + height)];
    for (const [start, end] of grid.within(...from, ...to)) {
      for (let at = start; at < end; at++) {
        const i = grid.order[at];
        if (classes[i] === DIM || x[i] < from[0] || x[i] > to[0] || y[i] < from[1] || y[i] > to[1]) continue;
        if (names.push(i) > LABELS) return;
      }
    }
    names.sort((i, j) => i - j); // so that moving the map does not change which are left out
    painter.labels(names.map((i) => ({ text: songs.title(i), at: view.screen(i) })), r, theme);
  }

  // ---- under the pointer

  const pick = (sx, sy) => grid.nearest(...view.place(sx, sy), (radius() + 6) / view.k, (i) => classes[i] !== DIM);

  function hover(sx, sy) {
    const i = sx === undefined ? -1 : pick(sx, sy);
    if (i !== state.hovered) redraw();
    state.hovered = i;
    tip.hidden = i < 0;
    canvas.classList.toggle("song", i >= 0);
    if (i < 0) return;
    const lines = [songs.title(i), songs.byline(i), songs.path(i) + (songs.missing.has(i) ? " (was not there)" : "")];
    [...tip.children].forEach((line, at) => { line.textContent = lines[at]; });
    const left = Math.max(8, Math.min(sx + 16, canvas.clientWidth - tip.offsetWidth - 8));
    const top = sy + 18 + tip.offsetHeight < canvas.clientHeight ? sy + 18 : sy - tip.offsetHeight - 12;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  view.listen(hover, (sx, sy) => {
    const i = pick(sx, sy);
    if (i >= 0 && i === state.played) toggle();
    else if (i >= 0) play(i);
  });
  by("in").addEventListener("click", () => view.zoom(1.5));
  by("out").addEventListener("click", () => view.zoom(1 / 1.5));
  by("all").addEventListener("click", () => view.fly(view.fit()));

  // ---- playing

  const trouble = (text) => { by("trouble").textContent = text; };

  function play(i) {
    state.played = i;
    by("player").hidden = false;
    by("title").textContent = songs.title(i);
    by("artist").textContent = songs.byline(i);
    by("path").textContent = songs.path(i);
    by("neighbours").replaceChildren(...songs.like(i).map((other, at) => item(
      songs.title(other), songs.cosine(i, at).toFixed(2), () => play(other))));
    trouble("");
    view.reveal(i);
    redraw();
    audio.pause();
    const url = songs.url(i);
    if (url) {
      by("path").href = audio.src = url;
      audio.play().catch((error) => {
        if (error.name === "NotAllowedError") trouble("Press play: this browser starts no sound by itself.");
      });
    } else {
      for (const [element, name] of [[by("path"), "href"], [audio, "src"]]) element.removeAttribute(name);
      trouble("This collection does not say where its songs are.");
    }
  }

  audio.addEventListener("error", () => {
    if (!audio.hasAttribute("src")) return;
    const kind = songs.path(state.played).match(/\.\w{1,5}$/)?.[0] ?? "this kind of";
    if (location.protocol !== "file:" && audio.src.startsWith("file:")) {
      trouble("A page from a server may not play files of this computer: open the map as a file.");
    } else if (songs.missing.has(state.played)) trouble("The file is not there, and was not when this map was made.");
    else trouble(`The file is no longer there, or this browser does not play ${kind} files.`);
  });
  const toggle = () => (audio.paused ? audio.play().catch(() => {}) : audio.pause()); // the error event tells why not
  by("close").addEventListener("click", () => {
    audio.pause();
    state.played = -1;
    by("player").hidden = true;
    canvas.focus();
    redraw();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, button, a, audio, summary")) return;
    if (event.key === "/") by("search").focus();
    else if (event.key === " " && state.played >= 0) toggle();
    else return;
    event.preventDefault();
  });

  // ---- search and colours

  /** A line of a list: a button with a name and a note, perhaps after a dot of a colour. */
  function item(text, note, act, colour = "") {
    const [row, button, name, small, dot] = ["li", "button", "span", "small", "i"].map(make);
    button.type = "button";
    button.addEventListener("click", act);
    name.textContent = button.title = text;
    small.textContent = note;
    dot.style.background = colour;
    button.append(...(colour ? [dot] : []), name, small);
    row.append(button);
    return row;
  }

  function classify() {
    const { column, found, only } = state;
    for (const i of songs.rows) {
      const own = column ? songs.classOf(column, i) : 0;
      classes[i] = (found && !found[i]) || (only !== null && own !== only) ? DIM : own;
    }
    hover();
    redraw();
  }

  function search() {
    const words = plain(by("search").value).split(/\s+/).filter(Boolean);
    const hits = words.length ? songs.rows.filter((i) => words.every((word) => songs.text(i).includes(word))) : [];
    state.found = words.length ? new Uint8Array(data.count) : null;
    for (const i of hits) state.found[i] = 1;
    const count = `${hits.length.toLocaleString("en")} song${hits.length > 1 ? "s" : ""} found`;
    by("found").textContent = !words.length ? "" : hits.length ? count : "No song has all of these words";
    by("results").replaceChildren(...hits.slice(0, 100).map((i) => {
      const row = item(songs.title(i), "", () => play(i));
      const under = make("small");
      under.textContent = songs.byline(i) || songs.path(i);
      row.querySelector("span").append(under);
      return row;
    }));
    classify();
    return hits;
  }
  by("search").addEventListener("input", search);
  by("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && by("search").value) {
      by("search").value = "";
      search();
    } else if (event.key === "Escape") canvas.focus();
    else if (event.key === "Enter") {
      const hits = search();
      if (!hits.length) return;
      play(hits[0]);
      view.fly(view.fit(hits));
    } else return;
    event.preventDefault();
  });

  function colourBy(column) {
    [state.column, state.only] = [column, null];
    by("legend").replaceChildren(...songs.legend(column).map(({ kind, name, count }) => {
      const colour = kind < data.colours ? `var(--c${kind})` : "var(--other)";
      const row = item(name, count.toLocaleString("en"), () => {
        state.only = state.only === kind ? null : kind;
        for (const other of by("legend").querySelectorAll("button")) {
          other.setAttribute("aria-pressed", String(other === row.firstChild && state.only === kind));
        }
        classify();
      }, colour);
      row.firstChild.setAttribute("aria-pressed", "false");
      return row;
    }));
    classify();
  }

  // ---- begin

  const choices = data.columns.filter((column) => songs.legend(column).length > 1);
  by("by").replaceChildren(...choices.map((column) => new Option(column.label)));
  by("by").addEventListener("change", () => colourBy(choices[by("by").selectedIndex]));
  by("colours").hidden = !choices.length;
  by("made").textContent = data.made;
  colourBy(choices[0] ?? null);
  readTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readTheme);
  const resize = () => {
    painter.resize(canvas.clientWidth, canvas.clientHeight);
    view.resized();
    draw(); // at once, for a resized canvas is empty
  };
  resize();
  new ResizeObserver(resize).observe(canvas);
  window.poolembed = { songs, view }; // for the console, and for tests
}

unpack().then(start).catch((error) => {
  by("failed").hidden = false;
  by("failed").textContent = `This map cannot be shown: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});
