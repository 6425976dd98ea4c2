/* A quantization while it runs and after: a row a variant with its proof, the plot, and the answers side by side. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const COLUMNS = 4; // of the chat
  studio.views ??= {};

  class View {
    constructor(live) {
      Object.assign(this, { live, run: live.run, shown: null });
      this.place = Object.assign(document.createElement("div"), { className: "qz-view" });
      this.place.innerHTML = `<div class="st-card qz-after" hidden></div>
        <div class="st-card"><h2>${esc(t("quantize.variants"))}</h2><p class="qz-doing st-muted" role="status"></p><div class="qz-scroll" tabindex="0" role="region" aria-label="${esc(t("quantize.variants"))}"></div></div>
        <div class="qz-two"><div class="st-card" data-plot hidden><h2>${esc(t("quantize.plot"))}</h2><p class="st-muted">${esc(t("quantize.plot.help"))}</p><div></div></div>
        <div class="st-card qz-proof" hidden><h2>${esc(t("quantize.compared"))}</h2><div class="st-views" role="tablist"></div><div data-proof></div></div></div>`;
      live.root.querySelector(".st-run-grid").before(this.place);
      this.$ = (selector) => this.place.querySelector(selector);
      this.place.onclick = (event) => this.click(event);
      studio.poll(this.place, 1200, () => this.look());
    }

    async look() {
      if (this.settled || this.run !== this.live.run) return;
      const over = !studio.active(this.live.state), found = await studio.call("quantize_run", { run: this.run });
      this.settled = over && found.variants.every((v) => v.state !== "done" || v.ref);
      const seen = JSON.stringify([found, over]);
      if (seen === this.seen) return;
      Object.assign(this, { seen, found });
      this.table();
      this.plot();
      this.proof();
      this.after(over);
    }

    /** Those that are made. */
    get ready() { return this.found.variants.filter((v) => v.state === "done"); }

    state(v) {
      if (v.state === "done") return studio.verdict(v.proof);
      if (v.state === "make" || v.state === "prove") return `<span class="qz-work"><span class="st-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.round(100 * v.share)}" aria-label="${esc(v.name)}"><i style="width:${(100 * v.share).toFixed(1)}%"></i></span><small>${esc(t(`quantize.state.${v.state}`))}</small></span>`;
      return `<span class="qz-state qz-${esc(v.state)}">${esc(t(`quantize.state.${v.state}`))}</span>`;
    }

    table() {
      const { variants, doing, source } = this.found, place = this.$(".qz-scroll"), num = (n, digits) => (n == null ? "–" : esc(studio.num(n, digits)));
      this.$(".qz-doing").textContent = doing ? t("quantize.reference", { name: source.label }) : "";
      this.$(".qz-doing").hidden = !doing;
      const heads = ["size", "bits", "perplexity", "kl", "top1", "tokens_per_second", "memory"];
      place.innerHTML = `<table class="st-table qz-table"><thead><tr><th scope="col">${esc(t("quantize.variant"))}</th><th scope="col">${esc(t("quantize.proof"))}</th>${heads.map((k) => `<th scope="col" class="st-num" title="${esc(t(`quantize.by.${k}.about`))}">${esc(t(`quantize.by.${k}`))}</th>`).join("")}<th></th></tr></thead><tbody>${variants.map((v, i) => {
        const p = v.proof || {}, seen = p.perplexity || {}, made = v.state === "done";
        const cells = made ? [esc(studio.bytes(v.size)), v.bits == null ? "–" : esc(studio.num(v.bits, 3)), seen.variant == null ? "–" : `<span class="qz-from">${num(seen.source, 4)}</span> → ${num(seen.variant, 4)}`, num(p.kl, 3), p.top1 == null ? "–" : `${(100 * p.top1).toFixed(1)} %`, num(p.tokens_per_second, 3), p.memory == null ? "–" : esc(studio.bytes(p.memory))] : heads.map(() => "");
        const why = v.state === "failed" ? [v.message, v.hint].filter(Boolean).join(" ") : (p.reasons || [])[0] || "";
        return `<tr data-at="${i}"><th scope="row">${made ? `<button type="button" class="st-link" data-open>${esc(studio.variantName(v))}</button>` : esc(v.name)}</th><td>${this.state(v)}${why ? `<small>${esc(why)}</small>` : ""}</td>${cells.map((cell) => `<td class="st-num">${cell}</td>`).join("")}
          <td class="st-row-actions">${made && v.ref ? ["chat", "export", "files"].map((act) => `<button type="button" class="st-btn st-small" data-act="${act}" aria-label="${esc(`${t(`quantize.do.${act}`)}: ${studio.variantName(v)}`)}">${esc(t(`quantize.short.${act}`))}</button>`).join("") : ""}</td></tr>`;
      }).join("")}</tbody></table>`;
    }

    plot() {
      const card = this.$("[data-plot]"), measured = this.ready.filter((v) => v.proof);
      card.hidden = !measured.length;
      if (!measured.length) return;
      if (!this.pareto) this.pareto = new studio.Pareto(card.lastElementChild, { source: {}, variants: [] }, (v) => this.choose(v.name));
      this.pareto.found = { source: this.whole || { label: this.found.source.label }, variants: measured };
      this.pareto.draw();
      if (!this.asked) { // size of the source, and nothing else of it, is known to the library alone
        this.asked = true;
        studio.call("quantize_variants", { ref: this.found.source.ref }).then(({ source }) => { this.whole = source; this.plot(); }, () => {});
      }
    }

    choose(name) {
      this.shown = name;
      this.proof();
      this.$(".qz-proof").scrollIntoView({ block: "nearest", behavior: "smooth" });
    }

    proof() {
      const card = this.$(".qz-proof"), measured = this.ready.filter((v) => v.proof);
      card.hidden = !measured.length;
      if (!measured.length) return;
      const now = measured.find((v) => v.name === this.shown) || measured[0], tabs = card.querySelector(".st-views");
      tabs.innerHTML = measured.map((v) => `<button type="button" role="tab" data-show="${esc(v.name)}" aria-selected="${v === now}">${esc(studio.variantName(v))}</button>`).join("");
      tabs.hidden = measured.length < 2;
      const html = `<p>${studio.verdict(now.proof)} ${now.proof.runtime ? `<span class="st-muted">${esc(t("quantize.runtime", { name: now.proof.runtime }))}</span>` : ""}</p>${studio.proofHtml(now.proof, this.found.source.label)}`;
      if (html !== this.told) card.querySelector("[data-proof]").innerHTML = this.told = html;
    }

    /** What to do with all of them. */
    after(over) {
      const place = this.$(".qz-after"), made = this.ready.filter((v) => v.ref);
      place.hidden = !over || !made.length;
      if (place.hidden) return;
      place.innerHTML = `<div class="st-made"><div><b>${esc(t(made.length === 1 ? "quantize.done.one" : "quantize.done", { n: made.length }))}</b><p class="st-muted">${esc(t("quantize.done.hint"))}</p></div><div class="st-actions">
        <button type="button" class="st-btn st-primary" data-all="chat">${esc(t(made.length === 1 ? "quantize.chat.one" : "quantize.chat.with", { n: Math.min(made.length, COLUMNS - 1) }))}</button><button type="button" class="st-btn" data-all="push">${esc(t(made.length === 1 ? "quantize.push.one" : "quantize.push.n", { n: made.length }))}</button></div></div>`;
    }

    click(event) {
      const at = event.target.closest("[data-at]")?.dataset.at, v = this.found?.variants[at], { act } = event.target.closest("[data-act]")?.dataset || {}, { all } = event.target.closest("[data-all]")?.dataset || {}, { show } = event.target.closest("[data-show]")?.dataset || {};
      const source = { ...this.found?.source, ...(this.whole || {}) };
      if (show) { this.choose(show); return void this.$(`[data-show="${CSS.escape(show)}"]`)?.focus(); }
      if (act) return studio.variantDo(act, v, source);
      if (event.target.closest("[data-open]")) return studio.variant({ ...v, run: null }, source);
      if (all === "chat") studio.open("chat", { models: [source.ref, ...this.ready.map((one) => one.ref)].filter(Boolean).slice(0, COLUMNS) });
      if (all === "push") studio.pushVariants(this.ready.filter((one) => one.ref), source);
    }
  }

  /** Called by the live view whenever it has read the run. */
  studio.views.quantize = (live) => {
    const Made = live.details.method === "learn" ? studio.Lesson : View;
    const view = live.quantizeView;
    if (view?.run === live.run && view.place.isConnected) { view.settled = false; return void view.look(); }
    live.quantizeView = new Made(live);
  };
})();
