/* Statistics of a version as plots: lengths against the context, turns, languages, roles, doubles, words, marks by tag. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const count = (n) => studio.dataRow.count(n);
  const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${+(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);
  const MOST = 15;
  const entries = (facet) => Object.entries(facet || {}).map(([k, n]) => [k, Number(n)]).sort((a, b) => b[1] - a[1]);
  const rest = (all) => (all.length > MOST ? [...all.slice(0, MOST - 1), [null, all.slice(MOST - 1).reduce((sum, [, n]) => sum + n, 0)]] : all);
  const unknown = (name) => (name === "" || name === "none" ? t("dataview.filter.unknown") : name);

  class Statistics extends studio.DataReport {
    constructor() { super("statistics"); }

    mount(root, shared) {
      super.mount(root, shared);
      window.addEventListener("studio:theme", () => { if (this.plots?.[0]?.element.isConnected) for (const plot of this.plots) plot.draw(); });
    }

    form() {
      const used = this.report?.recipe || {};
      return `<form class="st-dv-form" onsubmit="return false"><label class="st-line">${esc(t("dataview.statistics.model"))}<select name="model" data-model><option value="${esc(used.model || "starter")}">${esc(used.model || "starter")}</option></select></label>
        <label class="st-line">${esc(t("dataview.statistics.limit"))}<input name="max_length" type="number" min="1" step="1" placeholder="${esc(t("dataview.statistics.limit.auto"))}" value="${esc(used.max_length || "")}"></label></form>`;
    }

    async formed() {
      const pick = this.root.querySelector("[data-model]");
      if (!pick) return;
      try {
        const models = (await studio.call("library")).models.filter((m) => !["checkpoint", "adapter"].includes(m.kind)), now = pick.value;
        pick.innerHTML = models.map((m) => `<option value="${esc(m.ref)}" ${m.ref === now ? "selected" : ""}>${esc(m.label)}</option>`).join("") || pick.innerHTML;
      } catch { /* the starter stays on offer */ }
    }

    values() {
      const form = this.root.querySelector(".st-dv-form"), used = this.report?.recipe || {};
      const model = form ? form.elements.model.value : used.model, limit = Number(form ? form.elements.max_length.value : used.max_length);
      return { ...(model ? { model } : {}), ...(limit ? { max_length: limit } : {}) };
    }

    tiles() {
      const r = this.report, tokens = r.tokens;
      const facts = [["rows", count(r.rows)], tokens?.total != null && ["tokens", (tokens.estimated ? "≈ " : "") + count(tokens.total)], tokens?.over != null && tokens.limit && ["over", (tokens.estimated ? "≈ " : "") + count(tokens.over)], r.duplicates && ["duplicates", count(r.duplicates.exact)], r.vocabulary && ["words", count(r.vocabulary.distinct)]].filter(Boolean);
      return `<dl class="st-tiles">${facts.map(([name, value]) => `<div><dt>${esc(t(`dataview.statistics.${name}`))}</dt><dd>${esc(value)}</dd></div>`).join("")}</dl>`;
    }

    draw() {
      this.root.innerHTML = `<div class="st-dv-report"><div class="st-dv-report-top">${this.head(this.tiles())}</div><details class="st-dv-again"><summary>${esc(t("dataview.statistics.other"))}</summary>${this.form()}<button type="button" class="st-btn st-small" data-report="run">${esc(t("dataview.statistics.run"))}</button></details><div class="st-dv-plots"></div></div>`;
      this.formed();
      const place = this.root.querySelector(".st-dv-plots");
      this.plots = this.specs().filter(Boolean).map((spec) => new studio.DataPlot(place, spec));
      this.words(place);
    }

    specs() {
      const r = this.report;
      return [this.tokens(r.tokens), this.range("chars", "chars", r.chars), this.turns(r.turns), this.bars("languages", r.languages, "lang"), this.roles(r.role_patterns), this.range("scores", "score", r.scores), this.bars("labels", r.labels, "label"),
        ...Object.keys(r.tags || {}).map((key) => this.tag(key, r.tags[key])), this.bars("sources", r.sources, "source", 2), this.bars("formats", r.formats, null, 2), this.growth(r.vocabulary)];
    }

    histogram(id, hist, more) {
      if (!hist?.counts?.length || !hist.counts.some(Boolean)) return null;
      const { edges, counts } = hist, step = edges[1] - edges[0] || 1, n = counts.length, whole = hist.edges.every(Number.isInteger);
      const end = (i) => (whole && i < n - 1 ? edges[i + 1] - 1 : edges[i + 1]); // the last bin takes all that is longer, and is drawn as wide as the others
      const middle = counts.map((_, i) => edges[i] + step / 2), widths = counts.map(() => step);
      const hover = counts.map((_, i) => { const [low, high] = [edges[i], end(i)].map((v) => (whole ? count(v) : studio.num(v, 3))); return low === high ? low : t("dataview.plot.range", { low, high }); });
      return { id, title: t(`dataview.plot.${id}`), xname: t(`dataview.plot.${id}.x`), x: middle, widths, hover, names: hover, wide: true, series: [{ name: t("dataview.plot.rows"), values: counts }], ...more };
    }

    tokens(tokens) {
      if (!tokens?.histogram) return null;
      const p = tokens.percentiles || {}, at = (q) => p[q], longest = () => this.rows({ sort: "chars", desc: true });
      const middle = at(50), most = at(95), high = tokens.max;
      const said = [middle != null && t("dataview.tokens.said", { middle: count(Math.round(middle)), most: count(Math.round(most ?? high)) }), tokens.limit && (tokens.over ? `<b class="st-warn">${esc(t("dataview.tokens.over", { n: count(tokens.over), share: percent(tokens.share_over ?? tokens.over / this.report.rows), limit: count(tokens.limit) }))}</b>` : esc(t("dataview.tokens.fit", { limit: count(tokens.limit) })))].filter(Boolean);
      const { edges } = tokens.histogram, edge = edges.at(-2) + edges[1] - edges[0], lines = tokens.limit && tokens.limit <= edge * 1.6 ? [{ at: tokens.limit, text: t("dataview.tokens.limit", { n: count(tokens.limit) }), left: tokens.limit > edge * 0.6 }] : [];
      return this.histogram("tokens", tokens.histogram, { big: true, height: 240, lines, said: said.join(" ") + (tokens.estimated ? ` ${esc(t("dataview.tokens.estimated", { n: count(tokens.rows) }))}` : ""), pick: longest, action: { label: t("dataview.plot.longest"), do: longest } });
    }

    /** Bars of a column that the table filters by range. */
    range(id, filter, hist) {
      const last = hist && hist.counts.length - 1, whole = hist?.edges.every(Number.isInteger);
      return this.histogram(id, hist, { pick: (i) => this.rows({ query: { [filter]: [hist.edges[i], i < last ? hist.edges[i + 1] - (whole ? 1 : 0) : null] } }) });
    }

    turns(turns) {
      const all = Object.entries(turns || {}).map(([k, n]) => [Number(k), n]).sort((a, b) => a[0] - b[0]);
      if (all.length < 2) return null;
      return { id: "turns", title: t("dataview.plot.turns"), x: all.map(([k]) => k), names: all.map(([k]) => String(k)), series: [{ name: t("dataview.plot.rows"), values: all.map(([, n]) => n) }], pick: (i) => this.rows({ query: { turns: [all[i][0], all[i][0]] } }) };
    }

    /** Bars that lie, the largest on top; `filter` is the one of the table that shows a bar's rows. */
    bars(id, facet, filter, least = 1) {
      const all = rest(entries(facet));
      if (all.length < least) return null;
      const name = (k) => (k === null ? t("dataview.plot.others") : id === "labels" && ["good", "bad"].includes(k) ? t(`dataview.label.${k}`) : id === "formats" ? k.replaceAll("_", " ") : id === "languages" && k && k !== "none" ? studio.dataRow.language(k) : unknown(k));
      const full = all.map(([k]) => name(k));
      return { id, title: t(`dataview.plot.${id}`), flat: true, names: full, shown: this.short(full), hover: full, ...this.single(full), series: [{ name: t("dataview.plot.rows"), values: all.map(([, n]) => n) }],
        pick: filter ? (i) => all[i][0] !== null && this.rows({ query: { [filter]: [all[i][0] || "none"] } }) : null };
    }

    single(names) { return names.length === 1 ? { single: true, said: esc(t("dataview.plot.single", { name: names[0] })) } : {}; }

    /** Names cut to fit beside a plot, each still its own. */
    short(names) {
      const seen = new Map();
      return names.map((name) => { let cut = name.length > 26 ? `${name.slice(0, 25)}…` : name; const n = seen.get(cut) || 0; seen.set(cut, n + 1); if (n) cut += ` (${n + 1})`; return cut; });
    }

    roles(patterns) {
      const all = rest(entries(patterns));
      if (!all.length) return null;
      const spoken = (k) => (k === null ? t("dataview.plot.others") : k.replaceAll(">", " → ").replace(/\)\+/g, ") …"));
      const names = all.map(([k]) => spoken(k));
      return { id: "role_patterns", title: t("dataview.plot.role_patterns"), flat: true, names, shown: this.short(names), hover: names, ...this.single(names), series: [{ name: t("dataview.plot.rows"), values: all.map(([, n]) => n) }] };
    }

    tag(key, values) {
      const all = Object.entries(values || {}).map(([value, v]) => [value, typeof v === "number" ? { none: v } : v]).map(([value, v]) => [value, v, (v.good || 0) + (v.bad || 0) + (v.none || 0)]).sort((a, b) => b[2] - a[2]).slice(0, MOST);
      if (!all.length) return null;
      const marked = all.some(([, v]) => v.good || v.bad), names = all.map(([value]) => unknown(value)), good = all.reduce((sum, [, v]) => sum + (v.good || 0), 0), bad = all.reduce((sum, [, v]) => sum + (v.bad || 0), 0);
      const series = marked ? [["good", "--st-good"], ["bad", "--st-bad"], ["none", "--st-faint"]].filter(([which]) => all.some(([, v]) => v[which])) : [["none", "--st-accent"]];
      return { id: `tag-${key}`, title: t("dataview.plot.tag", { key }), flat: true, legend: marked, names, shown: this.short(names), hover: names, colors: series.map(([, color]) => color), said: marked ? esc(t("dataview.plot.tag.said", { good: count(good), bad: count(bad) })) : "",
        series: series.map(([which]) => ({ name: t(`dataview.label.${which}`), values: all.map(([, v]) => v[which] || 0) })),
        pick: (i, which) => this.rows({ query: { tags: { [key]: [all[i][0] || "none"] }, ...(marked && series.length > 1 && series[which] ? { label: [series[which][0]] } : {}) } }) };
    }

    growth(vocabulary) {
      const points = vocabulary?.growth || [];
      if (points.length < 2) return null;
      return { id: "vocabulary", kind: "line", title: t("dataview.plot.vocabulary"), said: esc(t("dataview.vocabulary.said", { words: count(vocabulary.words), distinct: count(vocabulary.distinct) })), x: points.map(([x]) => x), y: points.map(([, y]) => y), xname: t("dataview.vocabulary.x"), yname: t("dataview.vocabulary.y") };
    }

    /** What is no plot: doubles with their mending step, and the most frequent words. */
    words(place) {
      const { duplicates, vocabulary } = this.report;
      if (duplicates) {
        place.insertAdjacentHTML("beforeend", `<figure class="st-card st-dv-plot" data-plot="duplicates"><figcaption><b>${esc(t("dataview.plot.duplicates"))}</b>${duplicates.exact ? `<button type="button" class="st-btn st-small" data-dedup>${esc(t("dataview.duplicates.fix"))}</button>` : ""}</figcaption>
          <p class="st-dv-said">${duplicates.exact ? esc(t("dataview.duplicates.said", { n: count(duplicates.exact), share: percent(duplicates.share) })) : `<span class="st-good">${esc(t("dataview.duplicates.none"))}</span>`}</p>
          ${duplicates.exact ? `<div class="st-bar st-dv-share" aria-hidden="true"><i style="width:${Math.min(100, 100 * duplicates.share).toFixed(1)}%"></i></div>` : ""}</figure>`);
        const fix = place.querySelector("[data-dedup]");
        if (fix) fix.onclick = () => this.shared.startStep({ kind: "data", method: "dedup", dataset: this.ref });
      }
      if (vocabulary?.top?.length) {
        place.insertAdjacentHTML("beforeend", `<figure class="st-card st-dv-plot" data-plot="words"><figcaption><b>${esc(t("dataview.plot.words"))}</b></figcaption><div class="st-dv-words">${vocabulary.top.slice(0, 40).map(([word, n]) => `<button type="button" class="st-dv-word" data-word="${esc(word)}">${esc(word)} <small>${count(n)}</small></button>`).join("")}</div></figure>`);
        place.querySelector(".st-dv-words").onclick = (event) => { const word = event.target.closest("[data-word]")?.dataset.word; if (word) this.rows({ query: { search: word } }); };
      }
    }
  }
  (studio.dataViews ??= {}).statistics = new Statistics();
})();
