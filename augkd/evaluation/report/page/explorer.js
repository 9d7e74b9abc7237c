"use strict";
// The transfer-set explorer: decompresses the columns, filters them, shows 20 originals per page. Texts enter the page as
// text nodes only. The state is in the address, so #explorer?q=…&label=… can be bookmarked and shared.
(() => {
  const PAGE = 20;
  const SVG = "http://www.w3.org/2000/svg";
  const FIELDS = ["q", "label", "source", "teacher", "picked", "order"];
  const at = (id) => document.getElementById(id);
  const field = (name) => at("x-" + name);

  const make = (tag, options = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  async function decompress(packed) {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  // ---- columns ----

  function prepare(data) {
    const count = data.text.length;
    const start = new Int32Array(count + 1);
    data.count.forEach((number, row) => { start[row + 1] = start[row] + number; });
    const owner = new Int32Array(start[count]);
    for (let row = 0; row < count; row++) owner.fill(row, start[row], start[row + 1]);
    const trace = data.trace;
    let levels = null;
    if (trace) {
      const level = new Int8Array(128).fill(-1);
      [...trace.alphabet].forEach((character, place) => { level[character.charCodeAt(0)] = place; });
      levels = trace.divergence.map((line) => Int8Array.from(line, (character) => level[character.charCodeAt(0)]));
    }
    return { ...data, rows: count, start, owner, levels };
  }

  // A teacher's prediction: 101 · class + probability in per cent.
  const classOf = (prediction) => Math.floor(prediction / 101);
  const probability = (prediction) => (prediction % 101) / 100;

  function divergence(data, level) {
    const { high, decades, alphabet } = data.trace;
    return 10 ** (high - decades + (level / (alphabet.length - 1)) * decades);
  }

  const pickedIn = (data, place, epoch) => data.trace.picked[epoch][place] === "1";
  const everPicked = (data, place) => data.trace.picked.some((line) => line[place] === "1");
  const traced = (data, place) => data.trace.picked[0][place] !== "-";

  function lastLevel(data, place) {
    for (let epoch = data.levels.length - 1; epoch >= 0; epoch--) {
      if (data.levels[epoch][place] >= 0) return data.levels[epoch][place];
    }
    return -1;
  }

  // ---- filter and sort ----

  function pattern(query) {
    const words = query.trim();
    return words ? new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu") : null;
  }

  function candidateFilter(data, state) {
    const source = state.source === "" ? -1 : Number(state.source);
    const last = data.trace ? data.trace.picked.length - 1 : 0;
    const picked = {
      ever: (place) => everPicked(data, place),
      last: (place) => pickedIn(data, place, last),
      never: (place) => traced(data, place) && !everPicked(data, place),
    }[data.trace ? state.picked : ""];
    return (place) => (source < 0 || data.source[place] === source) && (!picked || picked(place));
  }

  function originalFilter(data, state) {
    const label = state.label === "" ? -1 : Number(state.label);
    return (row) => {
      if (label >= 0 && data.label[row] !== label) return false;
      if (state.teacher === "" || !data.labels.length) return true;
      if (data.label[row] === null) return false;
      return (classOf(data.teacher[row]) === data.label[row]) === (state.teacher === "agrees");
    };
  }

  function matching(data, state) {
    const search = pattern(state.q);
    const hits = search && data.texts.map((text) => { search.lastIndex = 0; return search.test(text); });
    const hit = (text, pair) => hits[text] || (pair && pair >= 0 && hits[pair]);
    const acceptsCandidate = candidateFilter(data, state), acceptsOriginal = originalFilter(data, state);
    const onlyCandidates = state.source !== "" || (data.trace && state.picked !== "");
    const results = [];
    for (let row = 0; row < data.rows; row++) {
      if (!acceptsOriginal(row)) continue;
      const own = !search || hit(data.text[row], data.pair && data.pair[row]);
      const places = [];
      for (let place = data.start[row]; place < data.start[row + 1]; place++) {
        if (!acceptsCandidate(place)) continue;
        if (own || hit(data.ctext[place], data.cpair && data.cpair[place])) places.push(place);
      }
      if (places.length || (own && !onlyCandidates)) results.push({ row, places });
    }
    return sorted(data, state, results);
  }

  function sorted(data, state, results) {
    const of = (places, measure, pick, none) => places.length ? pick(...places.map(measure)) : none;
    const keys = {
      divergence: (result) => -of(result.places, (place) => lastLevel(data, place), Math.max, -2),
      uncertain: (result) => probability(data.teacher[result.row]),
      dissimilar: (result) => of(result.places, (place) => data.score[place] ?? 2, Math.min, 3),
    };
    const key = keys[state.order];
    if (!key || (state.order === "divergence" && !data.trace)) return results;
    results.forEach((result) => { result.key = key(result); });
    return results.sort((a, b) => a.key - b.key || a.row - b.row);
  }

  // ---- page ----

  function marked(text, search) {
    const parts = [];
    let from = 0;
    if (search) {
      search.lastIndex = 0;
      for (const match of text.matchAll(search)) {
        parts.push(text.slice(from, match.index), make("mark", {}, match[0]));
        from = match.index + match[0].length;
      }
    }
    return [...parts, text.slice(from)];
  }

  function words(text, replaced, search) {
    return text.split(" ").flatMap((word, place) => {
      const parts = marked(word, search);
      const shown = replaced.includes(place) ? [make("ins", { title: "not in the original" }, ...parts)] : parts;
      return place ? [" ", ...shown] : shown;
    });
  }

  function whole(data, text, pair, search, replaced) {
    const first = replaced ? words(data.texts[text], replaced, search) : marked(data.texts[text], search);
    const parts = [make("span", { dir: "auto" }, ...first)];
    if (pair !== undefined && pair !== null && pair >= 0) {
      parts.push(make("span", { class: "part" }, " ‖ "), make("span", { dir: "auto" }, ...marked(data.texts[pair], search)));
    }
    return parts;
  }

  function shownPrediction(data, prediction) {
    if (!data.labels.length) return prediction.toFixed(2);
    return `${data.labels[classOf(prediction)]} ${probability(prediction).toFixed(2)}`;
  }

  function spark(data, place) {
    const trace = data.trace, wide = 64, high = 20, top = trace.alphabet.length - 1;
    const epochs = trace.epochs.length;
    const x = (epoch) => epochs === 1 ? wide / 2 : 3 + (epoch * (wide - 6)) / (epochs - 1);
    const y = (level) => 3 + ((top - level) * (high - 6)) / top;
    const runs = [[]], descriptions = [], dots = [];  // lines join epochs in which it was scored, with none between
    for (let epoch = 0; epoch < epochs; epoch++) {
      const level = data.levels[epoch][place], picked = pickedIn(data, place, epoch);
      if (level >= 0) runs.at(-1).push(`${x(epoch).toFixed(1)},${y(level).toFixed(1)}`);
      else runs.push([]);
      if (level >= 0 || picked) dots.push([x(epoch), level >= 0 ? y(level) : high / 2, picked]);
      descriptions.push(`epoch ${trace.epochs[epoch]}: ${level < 0 ? "not scored" : divergence(data, level).toPrecision(2)}${picked ? ", picked" : ""}`);
    }
    const svg = document.createElementNS(SVG, "svg");
    const append = (parent, tag, options) => {
      const element = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(options)) element.setAttribute(name, value);
      parent.append(element);
      return element;
    };
    const options = { class: "spark", viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": descriptions.join("; ") };
    for (const [name, value] of Object.entries(options)) svg.setAttribute(name, value);
    append(svg, "title", {}).textContent = descriptions.join("\n");
    for (const points of runs) if (points.length > 1) append(svg, "polyline", { points: points.join(" ") });
    for (const [cx, cy, picked] of dots) append(svg, "circle", { cx, cy, r: picked ? 2.6 : 1.5, class: picked ? "on" : "off" });
    return svg;
  }

  function pickedText(data, place) {
    if (!traced(data, place)) return "not traced";
    const count = data.trace.picked.reduce((sum, line) => sum + (line[place] === "1"), 0);
    return count ? `picked ${count} of ${data.trace.picked.length}` : "not picked";
  }

  function candidate(data, place, search) {
    const replaced = data.marked[place];
    const text = make("td", { class: "text" }, ...whole(data, data.ctext[place], data.cpair && data.cpair[place], search, replaced));
    const score = data.score[place];
    const cells = [text, make("td", {}, data.sources[data.source[place]]), make("td", {}, score === null ? "–" : score.toFixed(2)), make("td", {}, shownPrediction(data, data.cteacher[place]))];
    const row = make("tr", {}, ...cells);
    if (data.trace) {
      row.append(make("td", { class: "course" }, spark(data, place)), make("td", {}, pickedText(data, place)));
      if (everPicked(data, place)) row.className = "picked";
    }
    return row;
  }

  function original(data, { row, places }, search) {
    const label = data.label[row];
    const details = [];
    if (label !== null) details.push(`label ${data.labels.length ? data.labels[label] : label}`);
    details.push(`teacher ${shownPrediction(data, data.teacher[row])}`);
    const line = make("p", { class: "facts" }, details.join(" · "));
    if (data.labels.length && label !== null && classOf(data.teacher[row]) !== label) line.append(" ", make("strong", {}, "disagrees with the label"));
    const item = make("li", {}, make("h3", {}, ...whole(data, data.text[row], data.pair && data.pair[row], search)), line);
    if (places.length) item.append(table(data, places, search));
    return item;
  }

  function table(data, places, search) {
    const head = ["candidate", "source", "similarity", "teacher"].concat(data.trace ? ["divergence by epoch", "selection"] : []);
    const heads = make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name))));
    const body = make("tbody", {}, ...places.map((place) => candidate(data, place, search)));
    return make("div", { class: "wide" }, make("table", { class: "candidates" }, heads, body));
  }

  // ---- state ----

  const number = (count) => count.toLocaleString("en");

  function start(data) {
    let state = {}, results = [], page = 0, waiting = 0;
    data.labels.forEach((name, place) => field("label").append(new Option(name, place)));
    data.sources.forEach((name, place) => field("source").append(new Option(name, place)));
    const regression = !data.labels.length;
    field("label").parentElement.hidden = at("x-disagree-label").hidden = regression;
    field("order").querySelector("[value=uncertain]").hidden = regression;
    at("x-picked-label").hidden = field("order").querySelector("[value=divergence]").hidden = !data.trace;
    if (data.trace) legend(data.trace);

    const read = () => Object.fromEntries(FIELDS.map((name) => [name, field(name).value]));
    const address = () => {
      const query = new URLSearchParams(FIELDS.filter((name) => state[name]).map((name) => [name, state[name]]));
      if (page) query.set("page", page + 1);
      const hash = query.size ? `#explorer?${query}` : "#explorer";
      if (query.size || location.hash.startsWith("#explorer?")) history.replaceState(null, "", hash);
    };
    const show = () => {
      const search = pattern(state.q), from = page * PAGE, pages = Math.max(1, Math.ceil(results.length / PAGE));
      at("x-list").replaceChildren(...results.slice(from, from + PAGE).map((result) => original(data, result, search)));
      at("x-list").setAttribute("start", from + 1);
      at("x-page").textContent = `page ${number(page + 1)} of ${number(pages)}`;
      at("x-back").disabled = page === 0;
      at("x-next").disabled = page + 1 >= pages;
      address();
    };
    const filter = (wanted = 0) => {
      state = read();
      results = matching(data, state);
      page = Math.max(0, Math.min(wanted, Math.ceil(results.length / PAGE) - 1));
      const candidates = results.reduce((sum, result) => sum + result.places.length, 0);
      at("x-status").textContent = `${number(results.length)} of ${number(data.rows)} originals, with ${number(candidates)} candidates`;
      show();
    };
    const restore = () => {
      const query = new URLSearchParams(location.hash.split("?")[1] || "");
      FIELDS.forEach((name) => { field(name).value = query.get(name) || ""; });
      filter(Number(query.get("page") || 1) - 1);
    };
    const turn = (by) => { page += by; show(); at("x-status").scrollIntoView({ block: "start" }); };

    at("x-form").addEventListener("submit", (event) => event.preventDefault());
    at("x-form").addEventListener("reset", () => setTimeout(filter));
    at("x-form").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
    at("x-back").addEventListener("click", () => turn(-1));
    at("x-next").addEventListener("click", () => turn(1));
    addEventListener("hashchange", () => { if (location.hash.startsWith("#explorer?")) restore(); });
    at("x-form").hidden = at("x-pages").hidden = false;
    restore();
    if (location.hash.startsWith("#explorer?")) at("explorer").scrollIntoView();
    document.documentElement.dataset.explorer = "ready";
  }

  function legend(trace) {
    const shown = trace.epochs.length < trace.total_epochs ? ` ${trace.epochs.length} of ${trace.total_epochs} epochs are shown.` : "";
    const sampled = trace.sampled ? " The trace covers a random sample of the originals." : "";
    at("x-legend").textContent = `The small plots show the divergence between teacher and student at each epoch, all on one logarithmic scale from ${(10 ** (trace.high - trace.decades)).toPrecision(1)} or less to ${(10 ** trace.high).toPrecision(2)}. A large dot: picked in that epoch.${shown}${sampled}`;
    at("x-legend").hidden = false;
  }

  const embedded = JSON.parse(at("explorer-data").textContent);
  at("x-status").textContent = "Loading the transfer set…";
  decompress(embedded.data).then(prepare).then(start).catch((error) => {
    at("x-status").textContent = `The transfer set could not be loaded (${error.message}). The explorer needs a browser from 2023 or later.`;
    throw error;
  });
})();
