/* Quantize: the choice of variants as chips, and what stands beside the form: what will be made, what was made already. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const USUAL = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"];
  const GROUPS = ["float", "legacy", "k", "i", "ternary"], FEW = 12;
  const GB = [8, 16, 24]; // memories that people have
  studio.formOf.quantize = "quantize";

  /* What the method offers for the model of the form: asked for once for all that show it. */
  const known = {};
  const key = (values) => json(Object.entries(values).filter(([name, value]) => !Array.isArray(value) && !["name", "dataset", "columns", "prove"].includes(name)));
  const offer = (tab) => {
    const { values } = studio.forms[tab] || {};
    if (!values) return null;
    const mine = key(values);
    if (known[tab]?.key !== mine) {
      const before = known[tab]?.method === values.method ? known[tab].found || known[tab].last : null; // until the answer is there
      const asked = (known[tab] = { key: mine, method: values.method, last: before });
      asked.wait = studio.call("quantize_types", { values }).then((found) => {
        asked.found = found;
        if (known[tab] === asked) window.dispatchEvent(new CustomEvent("studio:quantizing", { detail: tab }));
      }, (error) => { asked.error = error; if (known[tab] === asked) window.dispatchEvent(new CustomEvent("studio:quantizing", { detail: tab })); });
    }
    return known[tab];
  };
  studio.quantizing = offer;

  /** "4.9 bits", with as many digits as mean something. */
  studio.bits = (n) => (n == null ? "" : t("quantize.bits", { n: n >= 10 ? Math.round(n) : +n.toFixed(1) }));

  class Picks {
    constructor({ root, props, watch }) {
      Object.assign(this, { root, props, tab: root.dataset.tab, name: root.dataset.name, wide: false });
      root.innerHTML = `<div class="qz-pick"><div class="st-working">${esc(t("quantize.asking"))}</div></div>`;
      root.addEventListener("change", (event) => event.target.matches("input[data-at]") && this.toggle());
      root.addEventListener("click", (event) => this.click(event));
      watch("value", () => this.show());
      window.addEventListener("studio:form", (event) => event.detail === this.tab && this.show());
      window.addEventListener("studio:quantizing", (event) => event.detail === this.tab && this.show());
      this.show();
    }

    get held() { return Array.isArray(this.props.value) ? this.props.value : []; }

    show() {
      const state = offer(this.tab), field = (state?.found || state?.last)?.fields?.[this.name];
      if (state?.error) return void (this.root.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(state.error.message)}</b><p>${esc(state.error.hint || "")}</p></div>`);
      if (!field) {
        if (this.drawn) { this.drawn = null; this.root.innerHTML = `<div class="qz-pick"><div class="st-working">${esc(t("quantize.asking"))}</div></div>`; }
        return;
      }
      const drawn = json([field, this.wide, studio.forms[this.tab].values.imatrix]);
      if (drawn !== this.drawn) { this.drawn = drawn; this.draw(field); }
      for (const box of this.root.querySelectorAll("input[data-at]")) box.checked = this.held.includes(this.field.choices[box.dataset.at].name);
      this.say();
    }

    draw(field) {
      this.field = field;
      const { choices } = field, many = choices.length > FEW, active = document.activeElement?.dataset?.at;
      const sighted = many && !this.wide ? choices.filter((c) => USUAL.includes(c.name) || this.held.includes(c.name)) : choices;
      const groups = many && this.wide ? GROUPS.filter((g) => choices.some((c) => c.group === g)) : [""];
      this.root.innerHTML = `<fieldset class="qz-pick"><legend class="st-label">${esc(field.title)}</legend><p class="st-info">${esc(field.help)}</p>
        ${groups.map((group) => `${group ? `<h4>${esc(t(`quantize.group.${group}`))} <small>${esc(t(`quantize.group.${group}.about`))}</small></h4>` : ""}
        <div class="qz-chips">${sighted.filter((c) => !group || c.group === group).map((c) => this.chip(c, choices.indexOf(c))).join("")}</div>`).join("")}
        ${many ? `<button type="button" class="st-link st-small-link" data-fold aria-expanded="${this.wide}">${esc(this.wide ? t("quantize.fewer") : t("quantize.all", { n: choices.length }))}</button>` : ""}
        <div class="qz-told" role="status"></div></fieldset>`;
      if (active) this.root.querySelector(`[data-at="${active}"]`)?.focus();
    }

    chip(c, at) {
      const facts = [c.bits != null && studio.bits(c.bits), c.imatrix && t("quantize.imatrix")].filter(Boolean).join(" · ");
      const title = typeof c.name === "number" ? String(c.name) : c.about && c.name === c.name.toLowerCase() && !/\d/.test(c.name) ? c.about : c.name;
      return `<label class="qz-chip${c.imatrix ? " qz-imatrix" : ""}${c.about && title !== c.about ? "" : " qz-short"}"><input type="checkbox" data-at="${at}"><span class="qz-chip-head"><b>${esc(title)}</b>${c.size != null ? `<i>${esc(studio.bytes(c.size))}</i>` : ""}</span>
        ${facts ? `<small>${esc(facts)}</small>` : ""}${c.about && title !== c.about ? `<em>${esc(c.about)}</em>` : ""}</label>`;
    }

    toggle() {
      const picked = [...this.root.querySelectorAll("input[data-at]:checked")].map((box) => this.field.choices[box.dataset.at].name);
      const sighted = new Set([...this.root.querySelectorAll("input[data-at]")].map((box) => this.field.choices[box.dataset.at].name));
      const made = this.field.choices.map((c) => c.name).filter((name) => picked.includes(name) || (this.held.includes(name) && !sighted.has(name)));
      this.props.value = made;
      this.say(made);
    }

    /** What is wrong with the choice, in place. */
    say(held = this.held) {
      const place = this.root.querySelector(".qz-told"), values = studio.forms[this.tab]?.values || {};
      if (!place || !this.field) return;
      const needing = this.field.choices.filter((c) => c.imatrix && held.includes(c.name)).map((c) => c.name);
      const html = !held.length ? `<p class="st-note st-warn">${esc(t("quantize.none_chosen"))}</p>`
        : needing.length && values.imatrix === false ? `<p class="st-note st-warn">${esc(t("quantize.needs_imatrix", { names: needing.join(", ") }))} <button type="button" class="st-btn st-small" data-imatrix>${esc(t("quantize.imatrix.on"))}</button></p>` : "";
      if (place.dataset.shown !== html) { place.innerHTML = html; place.dataset.shown = html; }
    }

    click(event) {
      if (event.target.closest("[data-fold]")) { this.wide = !this.wide; this.show(); this.root.querySelector("[data-fold]")?.focus(); }
      if (event.target.closest("[data-imatrix]")) studio.send(`open_${this.tab}`, { values: { imatrix: true } });
    }
  }
  studio.parts.picks = (context) => new Picks(context);

  /** Which of the usual memories it fits, as marks: "8 16 24 GB". */
  const marks = (needs) => needs == null ? "–" : `<span class="qz-marks" role="img" aria-label="${esc(t("quantize.fits", { list: GB.filter((n) => needs <= n * 1e9).map((n) => `${n} GB`).join(", ") || t("quantize.fits.none") }))}">${GB.map((n) => `<i class="${needs <= n * 1e9 ? "qz-fits" : ""}">${n}</i>`).join("")}</span>`;

  class QuantizePanel extends studio.Panel {
    constructor(context) {
      super(context, ["making", "made", "data", "yaml"]);
      window.addEventListener("studio:quantizing", (event) => event.detail === this.tab && this.take());
      for (const event of ["studio:runs-ended", "studio:back"]) window.addEventListener(event, () => { this.wanted = null; this.take(); });
    }

    begin() {
      this.empty("making", "quantize.making.empty", "quantize.making.empty.hint");
      this.empty("data", "data.empty", "data.empty.hint");
      this.empty("made", "quantize.made.empty", "quantize.made.empty.hint");
    }

    show(state) {
      if (this.view === "data") return super.show(state);
      this[this.view](state.values);
    }

    making(values) {
      const told = offer(this.tab), found = told?.found || told?.last, place = this.place.making;
      if (told?.error) {
        this.problem("making", told.error);
        this.place.making.querySelector("[data-retry]").onclick = () => { delete known[this.tab]; this.take(); };
        return;
      }
      if (!found) return;
      this.exists(values.model);
      if (!found.makes) return void (place.innerHTML = this.lesson(values, found));
      const { choices, title } = found.fields[found.makes], held = values[found.makes] || [], source = found.source;
      const rows = choices.filter((c) => held.includes(c.name)).sort((a, b) => (b.size || 0) - (a.size || 0)), most = Math.max(source?.size || 0, ...rows.map((c) => c.size || 0)) || 1;
      if (!rows.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("quantize.making.none"))}</b><p>${esc(t("quantize.making.none.hint", { title }))}</p></div>`);
      const bar = (size) => `<span class="qz-size"><i style="width:${(100 * (size || 0) / most).toFixed(1)}%"></i></span>`;
      const have = new Set((this.have?.variants || []).filter((v) => v.method === `quantize/${values.method}`).map((v) => v.variant));
      const total = rows.reduce((n, c) => n + (c.size || 0), 0);
      place.innerHTML = `<table class="st-table qz-plan"><thead><tr><th scope="col">${esc(t("quantize.variant"))}</th><th scope="col" class="st-num">${esc(t("quantize.size"))}</th><th scope="col"><span class="st-visually-hidden">${esc(t("quantize.size"))}</span></th><th scope="col">${esc(t("quantize.memory.gb"))}</th></tr></thead><tbody>
        ${source?.size ? `<tr class="qz-source"><th scope="row">${esc(source.label)}<small>${esc(t("quantize.source"))}</small></th><td class="st-num">${esc(studio.bytes(source.size))}</td><td>${bar(source.size)}</td><td></td></tr>` : ""}
        ${rows.map((c) => `<tr><th scope="row">${esc(c.variant || c.name)}${have.has(c.variant || c.name) ? ` <span class="st-tag">${esc(t("quantize.exists"))}</span>` : ""}<small>${esc(studio.bits(c.bits))}</small></th><td class="st-num">${esc(studio.bytes(c.size))}${source?.size && c.size ? `<small>${esc(t("quantize.share", { n: Math.round(100 * c.size / source.size) }))}</small>` : ""}</td><td>${bar(c.size)}</td><td>${marks(c.needs)}</td></tr>`).join("")}</tbody></table>
        <p class="st-muted qz-sum">${esc(total ? t("quantize.total", { n: rows.length, size: studio.bytes(total) }) : t("quantize.total.unknown", { n: rows.length }))} ${esc(t("quantize.memory.rule"))}</p>
        ${values.prove ? `<p class="st-muted qz-sum">${esc(t("quantize.proof.will"))}</p>` : ""}${this.have?.variants.length ? `<button type="button" class="st-btn st-small" data-made>${esc(t("quantize.made.see", { n: this.have.variants.length }))}</button>` : ""}`;
      const see = place.querySelector("[data-made]");
      if (see) see.onclick = () => { this.open("made"); document.getElementById(`${this.tab}-view-made`)?.focus(); };
    }

    /** What a run of 'Learn it' will measure. */
    lesson(values, found) {
      const count = (values.bits || []).length * 2 * (values.granularities || []).length;
      return `<div class="qz-lesson"><h3>${esc(t("quantize.lesson"))}</h3><p>${esc(t("quantize.lesson.what", { model: found.source?.label || "…" }))}</p>
        <ul>${["histogram", "layers", "perplexity", "samples"].map((k) => `<li>${esc(t(`quantize.lesson.${k}`))}</li>`).join("")}</ul><p class="st-muted">${esc(t("quantize.lesson.count", { n: count }))}</p></div>`;
    }

    /** What there is already of this model; asked for anew when the model or the library changes. */
    async exists(ref) {
      if (!ref || this.wanted === ref) return;
      this.wanted = ref;
      try { this.have = await studio.call("quantize_variants", { ref }); } catch { this.have = null; }
      if (this.wanted === ref && studio.forms[this.tab]?.values.model === ref) this[this.view]?.(studio.forms[this.tab].values);
    }

    made(values) {
      this.exists(values.model);
      const found = this.have, place = this.place.made, shown = json(found);
      if (!found) return;
      if (!found.variants.length) { this.drawn = null; return this.empty("made", "quantize.made.empty", "quantize.made.empty.hint"); }
      if (this.drawn === shown) return void this.plot?.draw();
      this.drawn = shown;
      place.innerHTML = `<div class="qz-pareto"></div><div class="qz-have"></div>`;
      this.plot = new studio.Pareto(place.querySelector(".qz-pareto"), found, (v) => studio.variant(v, found.source));
      new studio.VariantList(place.querySelector(".qz-have"), found);
    }
  }
  studio.parts.quantizepanel = (context) => new QuantizePanel(context);
})();
