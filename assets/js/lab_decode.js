/* The decoding view of the Chat tab: one prompt under several ways of choosing words, side by side; every token with what the model thought. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-lab-decode", MOST = 4;
  const kept = () => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } };
  const visible = (text) => (text ? esc(text).replace(/ /g, '<i class="st-sp">·</i>').replace(/\n/g, '<i class="st-nl">↵</i>\n') : "<i>▯</i>");
  const percent = (p) => (p >= 0.995 ? "100 %" : p >= 0.1 ? `${Math.round(p * 100)} %` : p >= 0.001 ? `${(p * 100).toPrecision(2)} %` : "< 0.1 %");

  class Decode {
    constructor({ root }) {
      const before = kept();
      Object.assign(this, { root, model: before.model || "starter", columns: (before.ways || [{ strategy: "greedy" }, { strategy: "sample", temperature: 1 }, { strategy: "beam" }]).map((way) => ({ way })) });
      root.innerHTML = `<div class="lt ld"><header><p class="st-muted">${esc(t("lab.decode.lead"))}</p>
        <div class="lt-bar"><button type="button" class="st-btn st-small" data-model></button><button type="button" class="st-btn st-small" data-add>${esc(t("lab.decode.add"))}</button></div>
        <form class="ld-ask"><textarea id="lab-prompt" rows="2" maxlength="20000" aria-label="${esc(t("lab.decode.prompt"))}"></textarea><button type="submit" class="st-btn st-primary">${esc(t("lab.decode.run"))}</button></form>
        <p class="ld-legend st-muted"><span>${esc(t("lab.decode.sure"))}</span><i></i><span>${esc(t("lab.decode.unsure"))}</span><span>${esc(t("lab.decode.legend"))}</span></p></header><div class="lt-cols"></div><section class="ls"></section></div>`;
      this.$ = (selector) => root.querySelector(selector);
      this.$("textarea").value = before.prompt ?? t("lab.decode.example");
      this.$("textarea").oninput = () => this.keep();
      this.$("textarea").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.run(); } };
      this.$("form").onsubmit = (event) => { event.preventDefault(); this.run(); };
      this.$("[data-add]").onclick = () => { if (this.columns.length < MOST) { this.columns.push({ way: { strategy: "sample", temperature: 0.7 } }); this.keep(); this.draw(); } };
      const place = this.$(".lt-cols");
      place.onclick = (event) => this.click(event);
      place.onchange = (event) => this.change(event);
      studio.plays.decode = { shown: () => this.shown() };
      if (studio.playing() === "decode") this.shown();
    }

    async shown() {
      if (this.facts) return;
      try { this.facts = await studio.call("lab_ways"); } catch (error) { return studio.failed(error); }
      const button = this.$("[data-model]");
      new studio.Picker(button, () => this.facts.models, (ref) => { this.model = ref; for (const c of this.columns) c.found = null; this.keep(); this.named(); this.draw(); });
      this.named();
      this.draw();
      studio.labSpeculative(this.$(".ls"), this.facts, () => ({ model: this.model, prompt: this.$("textarea").value }));
    }

    named() {
      const button = this.$("[data-model]");
      button.dataset.ref = this.model;
      button.textContent = t("lab.decode.model", { name: this.facts.models.find((m) => m.ref === this.model)?.label || this.model });
    }

    keep() { try { localStorage.setItem(KEY, JSON.stringify({ model: this.model, prompt: this.$("textarea").value, ways: this.columns.map((c) => c.way) })); } catch { /* a convenience only */ } }

    run() { this.keep(); this.columns.forEach((_, i) => this.ask(i)); }

    async ask(i, prefix = []) {
      const column = this.columns[i], mine = (column.asked = (column.asked || 0) + 1);
      column.busy = true;
      this.one(i);
      try {
        const found = await studio.call("lab_decode", { model: this.model, prompt: this.$("textarea").value, way: column.way, prefix });
        if (mine !== column.asked) return;
        Object.assign(column, { found, error: null, before: prefix.length ? column.found : null });
      } catch (error) { if (mine === column.asked) Object.assign(column, { error, found: null }); }
      column.busy = false;
      const now = this.columns.indexOf(column);
      if (now >= 0) this.one(now);
    }

    change(event) {
      const place = event.target.closest("article"), name = event.target.name;
      if (!place || !name) return;
      const column = this.columns[Number(place.dataset.i)];
      if (name === "strategy") column.way = { ...column.way, strategy: event.target.value };
      else column.way[name] = event.target.value === "" ? undefined : Number(event.target.value);
      this.keep();
      if (name === "strategy") { column.found = null; this.one(Number(place.dataset.i)); }
    }

    click(event) {
      const place = event.target.closest("article"), i = Number(place?.dataset.i), column = this.columns[i];
      if (!column) return;
      if (event.target.closest("[data-drop]")) { this.columns.splice(i, 1); this.keep(); return this.draw(); }
      if (event.target.closest("[data-again]")) return this.ask(i);
      if (event.target.closest("[data-back]")) { Object.assign(column, { found: column.before, before: null }); return this.one(i); }
      const other = event.target.closest("[data-token]"), token = event.target.closest("[data-n]");
      if (other) return this.ask(i, [...column.found.tokens.slice(0, column.open).map((one) => one.id), Number(other.dataset.token)]);
      column.open = token && column.open !== Number(token.dataset.n) ? Number(token.dataset.n) : null;
      this.one(i);
      if (column.open != null) this.root.querySelector(`[data-i="${i}"] [data-n="${column.open}"]`)?.focus();
    }

    draw() {
      this.$("[data-add]").disabled = this.columns.length >= MOST;
      this.$(".lt-cols").innerHTML = this.columns.map((_, i) => `<article data-i="${i}"></article>`).join("");
      this.columns.forEach((_, i) => this.one(i));
    }

    one(i) {
      const place = this.root.querySelector(`article[data-i="${i}"]`), { way, found, error, busy, before, open } = this.columns[i];
      if (!place || !this.facts) return;
      const { strategies, of, numbers } = this.facts;
      const field = (name) => `<label><span>${esc(t(`lab.decode.set.${name}`))}</span><input name="${name}" inputmode="decimal" value="${esc(way[name] ?? "")}" placeholder="${numbers[name][0]}"></label>`;
      const tile = (key, value) => `<div><dt>${esc(t(`lab.decode.${key}`))}</dt><dd>${value}</dd></div>`;
      place.innerHTML = `<header><select name="strategy" aria-label="${esc(t("lab.decode.strategy"))}">${strategies.map((s) => `<option value="${s}" ${s === (way.strategy || "greedy") ? "selected" : ""}>${esc(t(`lab.decode.${s}`))}</option>`).join("")}</select>
        <span>${before ? `<button type="button" class="st-link" data-back>${esc(t("lab.decode.back"))}</button>` : ""}<button type="button" class="st-icon" data-again aria-label="${esc(t("lab.decode.again"))}" title="${esc(t("lab.decode.again"))}">↻</button>${this.columns.length > 1 ? `<button type="button" class="st-icon" data-drop aria-label="${esc(t("lab.decode.drop"))}">×</button>` : ""}</span></header>
        <p class="st-muted">${esc(t(`lab.decode.${way.strategy || "greedy"}.about`))}</p><div class="ld-set">${of[way.strategy || "greedy"].map(field).join("")}</div>
        ${busy ? `<p class="st-working" role="status">${esc(t("lab.decode.working"))}</p>` : ""}
        ${error ? `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>` : ""}
        ${found ? `<div class="ld-text${busy ? " ld-old" : ""}">${found.tokens.map((one, n) => this.token(one, n, n === open)).join("")}</div>${open != null && found.tokens[open] ? this.others(found.tokens[open], found.tokens[open].kept) : ""}${this.entropy(found.tokens)}
          <dl class="st-tiles">${tile("tokens", found.tokens.length)}${tile("logprob", studio.num(found.logprob, 3))}${tile("speed", `${studio.num(found.tokens_per_second, 3)}`)}</dl><p class="st-muted">${esc(t(`lab.decode.end.${found.finish}`))}</p>${found.tree ? this.tree(found.tree.nodes) : ""}` : ""}`;
    }

    token(one, n, open) {
      return `<button type="button" class="ld-t${one.given ? " ld-given" : ""}${open ? " ld-open" : ""}" data-n="${n}" style="--p:${(1 - one.p).toFixed(3)}" title="${esc(t("lab.decode.token", { p: percent(one.p), rank: one.rank, bits: studio.num(one.entropy, 2) }))}" aria-expanded="${open}">${visible(one.text)}</button>`;
    }

    others(token, kept) {
      const most = token.alternatives[0]?.p || 1;
      return `<div class="ld-others"><p class="st-muted">${esc(t("lab.decode.others"))}${kept ? ` ${esc(t("lab.decode.kept", { n: studio.num(kept) }))}` : ""}</p>${token.alternatives.map((one) => `<button type="button" data-token="${one.id}" class="${one.id === token.id ? "ld-chosen" : ""}" ${one.id === token.id ? "disabled" : ""}><code>${visible(one.text)}</code><i style="width:${((one.p / most) * 100).toFixed(1)}%"></i><span>${percent(one.p)}</span></button>`).join("")}</div>`;
    }

    entropy(tokens) {
      if (tokens.length < 2) return "";
      const most = Math.max(1, ...tokens.map((one) => one.entropy)), width = 300, step = width / (tokens.length - 1);
      const points = tokens.map((one, n) => `${(n * step).toFixed(1)},${(38 - (one.entropy / most) * 34).toFixed(1)}`).join(" ");
      return `<figure class="ld-entropy"><svg viewBox="0 0 ${width} 40" preserveAspectRatio="none" role="img" aria-label="${esc(t("lab.decode.entropy"))}"><polyline points="${points}"/></svg><figcaption class="st-muted">${esc(t("lab.decode.entropy.about", { most: studio.num(most, 2) }))}</figcaption></figure>`;
    }

    /** The beams as a tree that grows to the right: leaves on rows of their own, what was given up in grey. */
    tree(nodes) {
      const kids = new Map(), at = new Map();
      for (const node of nodes) if (node.parent !== null) kids.set(node.parent, [...(kids.get(node.parent) || []), node]);
      let row = 0;
      const walk = (node, depth) => {
        const children = (kids.get(node.id) || []).sort((a, b) => b.best - a.best);
        if (!children.length) { at.set(node.id, { x: depth, y: row++ }); return; }
        for (const child of children) walk(child, depth + 1);
        at.set(node.id, { x: depth, y: at.get(children[0].id).y });
      };
      walk(nodes[0], 0);
      const W = 62, H = 20, deep = Math.max(...[...at.values()].map((p) => p.x));
      const place = (node) => ({ x: at.get(node.id).x * W + 6, y: at.get(node.id).y * H + 13 });
      const byId = new Map(nodes.map((node) => [node.id, node]));
      const line = (node) => { const a = place(byId.get(node.parent)), b = place(node); return `<path d="M${a.x} ${a.y}C${a.x + 24} ${a.y} ${b.x - 24} ${b.y} ${b.x} ${b.y}" class="${node.best ? "ld-best" : ""}"/>`; };
      const text = (node) => { const p = place(node); return `<text x="${p.x + 3}" y="${p.y - 3}" class="${node.best ? "ld-best" : ""}">${esc((node.text || "▯").replace(/ /g, "·").replace(/\n/g, "↵").slice(0, 9))}</text>`; };
      const grown = nodes.slice(1).sort((a, b) => a.best - b.best);
      return `<h3>${esc(t("lab.decode.tree"))}</h3><p class="st-muted">${esc(t("lab.decode.tree.about"))}</p><div class="ld-tree" tabindex="0"><svg width="${(deep + 1) * W + 20}" height="${row * H + 10}" role="img" aria-label="${esc(t("lab.decode.tree"))}">${grown.map(line).join("")}${grown.map(text).join("")}</svg></div>`;
    }
  }
  studio.parts.labdecode = (context) => new Decode(context);
})();
