// What the page says of each song.

/** Lower case without accents, for searching. */
const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** Looks into the data as page.py packs it. A column's names are the most frequent first, and its first one is none. */
function describe(data) {
  const columns = Object.fromEntries(data.columns.map((column) => [column.id, column]));
  const valueOf = (id, i) => (id in columns ? columns[id].names[data[id][i]] : "");
  const path = (i) => data.folders[data.folder[i]].shown + data.names[i];
  const texts = new Array(data.count);
  const [MORE, NONE] = [data.colours, data.colours + 1];
  const songs = {
    rows: Array.from({ length: data.count }, (_, i) => i),
    missing: new Set(data.missing),
    path,
    title: (i) => data.titles[i] || data.names[i],
    byline: (i) => [valueOf("artist", i), valueOf("album", i)].filter(Boolean).join(" – "),
    /** All that one can search for. */
    text: (i) => (texts[i] ??= plain([data.titles[i], valueOf("artist", i), valueOf("album", i), path(i)].join("\n"))),
    /** Where to play it from, or "" where that is not known. */
    url(i) {
      const { url } = data.folders[data.folder[i]];
      return url && url + (data.urls[i] ?? encodeURIComponent(data.names[i]));
    },
    /** The songs most like it, nearest first. */
    like: (i) => Array.from(data.like.subarray(i * data.near, (i + 1) * data.near)),
    cosine: (i, at) => data.cosines[i * data.near + at] / 100,
    classOf(column, i) {
      const rank = data[column.id][i];
      return rank === 0 ? NONE : Math.min(rank - 1, MORE);
    },
    /** What the colours of a column stand for: class, name, how many songs. */
    legend(column) {
      if (!column) return [];
      const counts = new Map();
      for (const i of songs.rows) {
        const kind = songs.classOf(column, i);
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
      }
      const others = column.names.length - 1 - MORE;
      const name = (kind) => (kind === NONE ? column.none : kind === MORE ? `${others} more` : column.names[kind + 1]);
      return [...counts].sort(([a], [b]) => a - b).map(([kind, count]) => ({ kind, name: name(kind), count }));
    },
  };
  return songs;
}
