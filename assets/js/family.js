/* The family tree of the library: who was made from whom, as a drawing that can be moved, clicked and read as a list. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KINDS = { starter: ["--st-ink", "star"], model: ["--st-accent", "circle"], adapter: ["--st-c1", "triangle-up"], merge: ["--st-c2", "diamond"], quantized: ["--st-c3", "square"], hub: ["--st-c5", "hexagon"], checkpoint: ["--st-faint", "circle-open"], dataset: ["--st-c4", "cross"], path: ["--st-muted", "hexagon-open"], deleted: ["--st-faint", "x-thin-open"] };
  const NARROW = 640, STEPS = 10;

  class Family {
    /** `library` holds the items with their actions (library.js). */
    constructor(place, library) {
      Object.assign(this, { place, library, data: null, chosen: null, datasets: false });
      place.innerHTML = `<div class="fm-head"><p class="st-muted">${esc(t("family.lead"))}</p><label class="st-check"><input type="checkbox" data-datasets> ${esc(t("family.datasets"))}</label>
          <span class="fm-zoom"><button type="button" class="st-icon" data-zoom="0.7" aria-label="${esc(t("family.in"))}" title="${esc(t("family.in"))}">+</button><button type="button" class="st-icon" data-zoom="1.4" aria-label="${esc(t("family.out"))}" title="${esc(t("family.out"))}">−</button><button type="button" class="st-btn st-small" data-fit>${esc(t("family.fit"))}</button></span></div>
        <div class="fm-stage"><div class="fm-plot" role="img"></div><aside class="fm-card" aria-live="polite" hidden></aside></div>
        <details class="fm-list"><summary>${esc(t("family.list"))}</summary><div></div></details>`;
      this.$ = (selector) => place.querySelector(selector);
      this.$("[data-datasets]").onchange = (event) => { this.datasets = event.target.checked; this.key = null; this.load(); };
      place.addEventListener("click", (event) => this.click(event));
      const repaint = () => (place.isConnected ? this.draw() : window.removeEventListener("studio:theme", repaint));
      window.addEventListener("studio:theme", repaint);
      new ResizeObserver(() => { const narrow = place.clientWidth < NARROW; if (place.clientWidth && narrow !== this.narrow) { this.narrow = narrow; this.fit(); } }).observe(place);
    }

    /** Look again; what the Hub's cards say comes after what is here. */
    async load() {
      const ask = (outside) => studio.call("family", { datasets: this.datasets, outside });
      try {
        let found = await ask(false);
        if (this.outside && this.outside.here === JSON.stringify(found)) found = this.outside.found;
        this.take(found);
        if (!found.nodes.some((n) => n.kind === "hub") || this.outside?.found === found || this.asking) return;
        this.asking = true;
        const here = JSON.stringify(found);
        try { this.outside = { here, found: await ask(true) }; this.take(this.outside.found); } finally { this.asking = false; }
      } catch (error) {
        if (!this.data) this.$(".fm-plot").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      }
    }

    take(found) {
      const key = JSON.stringify(found);
      if (key === this.key) return;
      this.key = key;
      this.data = found;
      this.by = Object.fromEntries(found.nodes.map((n) => [n.ref, n]));
      if (!this.by[this.chosen]) this.chosen = null;
      this.card();
      this.draw();
      this.list();
    }

    name(ref) { const n = this.by[ref]; return n?.label || t(n?.kind === "deleted" ? "family.deleted" : "family.unnamed"); }

    /** Everything that leads to a node, and everything it led to. */
    line(ref) {
      const walk = (from, to) => { const seen = new Set([ref]), left = [ref]; while (left.length) { const at = left.pop(); for (const e of this.data.edges) if (e[from] === at && !seen.has(e[to])) { seen.add(e[to]); left.push(e[to]); } } return seen; };
      return new Set([...walk("child", "parent"), ...walk("parent", "child")]);
    }

    /** Where a node stands: generations run to the right, on a narrow page downwards. */
    at(n) { return this.narrow ? [n.y, -n.x] : [n.x, -n.y]; }

    curve(a, b) {
      const [x0, y0] = this.at(a), [x1, y1] = this.at(b), ease = (s) => s * s * (3 - 2 * s);
      return Array.from({ length: STEPS + 1 }, (_, i) => { const s = i / STEPS; return this.narrow ? [x0 + (x1 - x0) * ease(s), y0 + (y1 - y0) * s] : [x0 + (x1 - x0) * s, y0 + (y1 - y0) * ease(s)]; });
    }

    edges(list, color, width) {
      const x = [], y = [];
      for (const e of list) { if (!this.by[e.parent] || !this.by[e.child]) continue; for (const [px, py] of this.curve(this.by[e.parent], this.by[e.child])) { x.push(px); y.push(py); } x.push(null); y.push(null); }
      return { type: "scatter", mode: "lines", x, y, line: { color, width }, hoverinfo: "skip", showlegend: false };
    }

    traces() {
      const { nodes, edges } = this.data, kin = this.chosen ? this.line(this.chosen) : null, text = this.library.filter, most = this.narrow ? 13 : 26;
      const dim = (n) => (kin ? !kin.has(n.ref) : text ? !`${n.label} ${n.ref} ${n.method}`.toLowerCase().includes(text) : false);
      const short = (label) => (label.length > most ? `${label.slice(0, most - 1)}…` : label), ink = studio.token("--st-ink"), faint = studio.token("--st-faint");
      const near = kin ? edges.filter((e) => kin.has(e.parent) && kin.has(e.child)) : [];
      const lines = [this.edges(edges.filter((e) => !near.includes(e)), studio.token("--st-line-strong"), 1.2), this.edges(near, studio.token("--st-accent"), 2)];
      return [...lines, ...Object.entries(KINDS).map(([kind, [token, symbol]]) => {
        const own = nodes.filter((n) => n.kind === kind), color = studio.token(token);
        return own.length ? { type: "scatter", mode: "markers+text", name: t(`family.${kind}`), x: own.map((n) => this.at(n)[0]), y: own.map((n) => this.at(n)[1]), customdata: own.map((n) => n.ref),
          text: own.map((n) => `${esc(short(this.name(n.ref)))}`), textposition: this.narrow ? "middle right" : "bottom center", textfont: { size: 11.5, color: own.map((n) => (dim(n) ? faint : ink)) }, cliponaxis: false,
          marker: { symbol, size: own.map((n) => (n.ref === this.chosen ? 17 : 13)), color, opacity: own.map((n) => (dim(n) ? 0.25 : 1)), line: { color: studio.token("--st-surface"), width: 1.5 } },
          hovertemplate: own.map((n) => `<b>${esc(this.name(n.ref))}</b><br>${esc(n.method ? t("family.by", { kind: t(`family.${kind}`), method: n.method }) : t(`family.${kind}`))}<extra></extra>`) } : null;
      }).filter(Boolean)];
    }

    ranges() {
      const all = this.data.nodes.map((n) => this.at(n)), span = (i, before, after) => { const v = all.map((p) => p[i]); return [Math.min(...v, 0) - before, Math.max(...v, this.narrow || i ? 0 : 1) + after]; };
      const x = span(0, this.narrow ? 0.35 : 0.4, this.narrow ? 0.95 : 0.4), y = span(1, this.narrow ? 0.4 : 0.75, 0.5);
      return { x, y };
    }

    draw() {
      const place = this.$(".fm-plot");
      if (!this.data || !place.clientWidth) return;
      this.narrow = this.place.clientWidth < NARROW;
      if (!this.data.nodes.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("family.empty"))}</b><p>${esc(t("library.empty.hint"))}</p></div>`);
      place.querySelector(".st-empty")?.remove();
      place.setAttribute("aria-label", t("family.label", { n: this.data.nodes.length }));
      const { x, y } = this.ranges(), rows = Math.ceil((y[1] - y[0])), axis = { visible: false, fixedrange: false };
      const layout = { height: Math.max(this.narrow ? 420 : 300, Math.min(640, 90 + rows * (this.narrow ? 92 : 46))), autosize: true, margin: { l: 6, r: 6, t: 6, b: 6 }, uirevision: `${this.narrow}`, dragmode: "pan", hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: studio.token("--st-font"), size: 11.5, color: studio.token("--st-muted") }, xaxis: { ...axis, range: x }, yaxis: { ...axis, range: y }, showlegend: true,
        legend: { orientation: "h", x: 0, xanchor: "left", y: -0.02, yanchor: "top", font: { size: 11.5 }, itemclick: "toggle", itemdoubleclick: false, bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: studio.token("--st-line"), font: { color: studio.token("--st-ink"), size: 12 } } };
      this.drawn = (this.drawn || Promise.resolve()).then(async () => {
        const P = await studio.plotly();
        if (!place.isConnected) return;
        await P.react(place, this.traces(), layout, { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: "reset" });
        if (this.heard) return;
        this.heard = true;
        place.on("plotly_click", ({ points }) => { const ref = points[0]?.customdata; if (ref) this.choose(ref); });
      }).catch((error) => { place.textContent = error.message; });
    }

    fit() {
      if (!this.data) return;
      this.narrow = this.place.clientWidth < NARROW;
      this.draw();
      const { x, y } = this.ranges();
      this.drawn?.then(async () => { const P = await studio.plotly(); if (this.data.nodes.length) P.relayout(this.$(".fm-plot"), { "xaxis.range": x, "yaxis.range": y }); });
    }

    async zoom(by) {
      const P = await studio.plotly(), place = this.$(".fm-plot"), { xaxis, yaxis } = place._fullLayout || {};
      if (!xaxis) return;
      const scaled = ([low, high]) => { const mid = (low + high) / 2, half = ((high - low) / 2) * by; return [mid - half, mid + half]; };
      P.relayout(place, { "xaxis.range": scaled(xaxis.range), "yaxis.range": scaled(yaxis.range) });
    }

    choose(ref) {
      this.chosen = this.chosen === ref ? null : ref;
      this.card();
      this.draw();
      this.drawn.then(async () => (await studio.plotly()).Plots.resize(this.$(".fm-plot"))); // the card took room, or gave it back
    }

    /** What is known of the chosen one, with the ways to go on. */
    card() {
      const place = this.$(".fm-card"), n = this.by?.[this.chosen];
      place.hidden = !n;
      if (!n) return;
      const item = this.library.items?.find((i) => i.ref === n.ref), hub = n.url;
      const side = (key, from, to) => { const all = this.data.edges.filter((e) => e[from] === n.ref); return all.length ? `<h4>${esc(t(key))}</h4><ul>${all.map((e) => `<li><button type="button" class="st-link" data-node="${esc(e[to])}">${esc(this.name(e[to]))}</button> <small>${esc(studio.known(`family.role.${e.role}`) ? t(`family.role.${e.role}`) : e.role)}${e.circle ? ` · ${esc(t("family.circle"))}` : ""}</small></li>`).join("")}</ul>` : ""; };
      const can = ["starter", "model", "adapter", "merge", "quantized", "hub", "checkpoint", "path"].includes(n.kind), trains = can && n.kind !== "quantized";
      place.innerHTML = `<button type="button" class="st-icon fm-close" data-close aria-label="${esc(t("action.close"))}">×</button><span class="st-tag">${esc(t(`family.${n.kind}`))}</span><h3>${esc(this.name(n.ref))}</h3>
        <p class="st-muted">${esc([n.method, n.created && studio.ago(n.created)].filter(Boolean).join(" · "))}</p>${item?.detail ? `<p>${esc(item.detail)}</p>` : ""}${side("item.from", "child", "parent")}${side("item.made_of", "parent", "child")}
        <div class="st-actions">${can ? `<button type="button" class="st-btn st-small st-primary" data-act="chat">${esc(t("action.chat"))}</button>` : ""}${trains ? `<button type="button" class="st-btn st-small" data-act="train">${esc(t("item.train"))}</button>` : ""}
          ${item ? `<button type="button" class="st-btn st-small" data-act="more">${esc(t("family.more"))}</button>` : ""}${hub ? `<a class="st-btn st-small" href="${esc(hub)}" target="_blank" rel="noopener noreferrer">${esc(t("hub.page"))}</a>` : ""}</div>`;
    }

    /** The same, to read: one line a model. */
    list() {
      const rows = [...this.data.nodes].sort((a, b) => a.x - b.x || a.y - b.y), from = (n) => this.data.edges.filter((e) => e.child === n.ref).map((e) => this.name(e.parent)).join(", ");
      this.$(".fm-list > div").innerHTML = `<table class="st-table"><thead><tr><th scope="col">${esc(t("item.name"))}</th><th scope="col">${esc(t("family.kind"))}</th><th scope="col">${esc(t("item.from"))}</th></tr></thead><tbody>${rows.map((n) => `<tr><th scope="row"><button type="button" class="st-link" data-node="${esc(n.ref)}">${esc(this.name(n.ref))}</button></th><td>${esc(t(`family.${n.kind}`))}</td><td>${esc(from(n) || "–")}</td></tr>`).join("")}</tbody></table>`;
    }

    click(event) {
      const { zoom, fit, node, act, close } = event.target.closest("[data-zoom], [data-fit], [data-node], [data-act], [data-close]")?.dataset || {};
      if (zoom) return this.zoom(Number(zoom));
      if (fit !== undefined) return this.fit();
      if (node) { this.chosen = null; this.choose(node); return this.$(".fm-card").scrollIntoView({ block: "nearest" }); }
      if (close !== undefined) return this.choose(this.chosen);
      if (act === "chat") studio.open("chat", { models: [this.chosen] });
      if (act === "train") studio.startFrom(this.chosen);
      if (act === "more") this.library.more(this.library.items.find((i) => i.ref === this.chosen));
    }
  }
  studio.FamilyTree = Family;

  /** The Library's family tree with one of them chosen, from anywhere. */
  studio.familyTree = (ref) => {
    studio.familyWanted = ref;
    studio.show("library");
    window.dispatchEvent(new CustomEvent("studio:family"));
  };
})();
