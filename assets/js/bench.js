/* "My benchmarks" of the Eval tab: the list of own benchmarks. The form that builds one is in bench_form.js. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  class Benchmarks {
    constructor(place) {
      Object.assign(this, { place, known: null, form: null });
      place.innerHTML = `<div class="be"><div class="be-list-page"><header class="be-head"><div><h1>${esc(t("bench.title"))}</h1><p class="st-muted">${esc(t("bench.lead"))}</p></div>
        <button type="button" class="st-btn st-primary" id="bench-new">${studio.dataParts.icons.plus}${esc(t("bench.new"))}</button></header><div class="be-list" id="bench-list"><div class="st-working">${esc(t("bench.working"))}</div></div></div>
        <div class="be-form-page" id="bench-form" hidden></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      this.$("#bench-new").onclick = () => this.build();
      this.$("#bench-list").onclick = (event) => {
        const button = event.target.closest("[data-do]"), name = button?.closest("[data-name]")?.dataset.name;
        if (button) this[button.dataset.do](this.all.find((one) => one.name === name));
      };
    }

    /** Shown again: as it was left, or what the detail asks for: {bench: NAME | "new", dataset}. */
    async shown({ bench = "", dataset = "" } = {}) {
      if (bench || dataset) {
        await this.load();
        const held = this.all?.find((one) => one.name === bench);
        return held ? this.edit(held) : this.build(dataset ? { dataset } : {});
      }
      if (this.form) return studio.evalAddress({ bench: this.form.name || "new" });
      return this.load();
    }

    async load() {
      try {
        this.known = { ...this.known, ...await studio.call("bench_start", { again: Boolean(this.known?.fields) }) };
        this.all = this.known.benchmarks;
        this.draw();
      } catch (error) {
        if (!error.offline) this.$("#bench-list").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      }
    }

    label(ref) { return this.known.datasets.find((d) => d.ref === ref)?.label || ref.split("/").pop(); }

    draw() {
      const facts = (one) => [one.items == null ? "" : one.items === 1 ? t("bench.question") : t("bench.questions", { n: studio.num(one.items) }), one.edit ? this.label(one.dataset) : t("bench.by_hand"), studio.ago(one.made)].filter(Boolean).join(" · ");
      const item = (one) => `<li class="be-item" data-name="${esc(one.name)}"><div class="be-about"><b>${esc(one.title)}</b>${one.metric_title ? `<span class="st-tag">${esc(one.metric_title)}</span>` : ""}${one.plain ? `<span class="st-tag" title="${esc(t("bench.plain.hint"))}">${esc(t("bench.plain"))}</span>` : ""}<small>${esc(facts(one))}</small>${one.about ? `<p>${esc(one.about)}</p>` : ""}</div>
        <div class="st-actions"><button type="button" class="st-btn st-small st-primary" data-do="start">${esc(t("bench.run"))}</button>${one.edit ? `<button type="button" class="st-btn st-small" data-do="edit">${esc(t("bench.edit"))}</button><button type="button" class="st-btn st-small" data-do="file">${esc(t("bench.file"))}</button><button type="button" class="st-btn st-small st-danger" data-do="remove">${esc(t("bench.delete"))}</button>` : ""}</div></li>`;
      this.$("#bench-list").innerHTML = this.all.length ? `<ul>${this.all.map(item).join("")}</ul>` : `<div class="st-empty"><b>${esc(t("bench.none"))}</b><p>${esc(t("bench.none.hint"))}</p></div>`;
    }

    start(one) { studio.evalStart({ method: "harness", tasks: [one.task] }); }

    async edit(one) {
      try { this.open((await studio.call("bench_load", { name: one.name })).values, one.name); } catch (error) { studio.failed(error); }
    }

    async file(one) {
      try {
        const { yaml } = await studio.call("bench_load", { name: one.name });
        const made = studio.dataDialog(one.title, `<form method="dialog"><h2>${esc(one.title)}</h2><div class="st-dialog-body"><p class="st-muted">${esc(t("bench.file.about"))}</p><pre class="st-code">lm_eval --model hf --model_args pretrained=FOLDER --include_path benchmarks --tasks bench_${esc(one.name)}</pre><pre class="st-code">${esc(yaml)}</pre></div>
          <footer><button type="button" class="st-btn" data-copy>${esc(t("bench.copy"))}</button><button type="button" class="st-btn st-primary" data-cancel>${esc(t("action.close"))}</button></footer></form>`);
        made.querySelector("[data-copy]").onclick = (event) => studio.copy(yaml, event.currentTarget);
      } catch (error) { studio.failed(error); }
    }

    async remove(one) {
      if (!await studio.ask(t("bench.delete.ask", { title: one.title }), `<p>${esc(t("bench.delete.about"))}</p>`, t("bench.delete"), true)) return;
      try {
        await studio.call("bench_delete", { name: one.name });
        studio.toast(t("bench.deleted", { title: one.title }));
      } catch (error) { studio.failed(error); }
      this.load();
    }

    // ---- the form

    async build(values = {}) {
      if (!this.known?.fields) await this.load();
      if (this.known?.fields) this.open(values, "");
    }

    open(values, name) {
      this.$(".be-list-page").hidden = true;
      this.$("#bench-form").hidden = false;
      this.form = new studio.BenchForm(this.$("#bench-form"), this, values, name);
      studio.evalAddress({ bench: name || "new" });
    }

    /** Back to the list; what was saved is on top. */
    close() {
      this.form?.end();
      this.form = null;
      this.$("#bench-form").hidden = true;
      this.$("#bench-form").innerHTML = "";
      this.$(".be-list-page").hidden = false;
      studio.evalAddress({ bench: null });
      this.load();
    }
  }

  let view = null;
  studio.evalView("benchmarks", { order: 20, shown(place, detail) { (view ??= new Benchmarks(place)).shown(detail); } });
})();
