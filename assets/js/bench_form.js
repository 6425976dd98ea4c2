/* The form that builds a benchmark: dataset, question, answer, metric; beside it the first questions as a model will see them. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const TEMPLATES = ["prompt", "target", "choices"], GUESSED = ["metric", "prompt", "target", "choices", "options", "tags", "max_gen_toks", "until"];

  studio.BenchForm = class BenchForm {
    /** @param owner the list: {known: {fields, metrics, datasets, models}, close()}; name: of the benchmark that is edited, or "" */
    constructor(place, owner, values, name) {
      Object.assign(this, { place, owner, name, fields: owner.known.fields, metrics: owner.known.metrics, typed: new Set(), asked: 0, columns: [], last: "prompt" });
      place.innerHTML = `<header class="be-head"><div><button type="button" class="st-link be-back" data-do="back">← ${esc(t("bench.back"))}</button><h1>${esc(name ? t("bench.build.edit", { title: values.title || name }) : t("bench.build"))}</h1></div></header>
        <div class="be-build"><form class="be-left" novalidate><div class="be-fields"></div></form><aside class="be-right" aria-label="${esc(t("bench.preview"))}"><h2>${esc(t("bench.preview"))}</h2><div class="be-preview" id="bench-preview" aria-live="polite"><p class="st-muted">${esc(t("bench.preview.none"))}</p></div><div class="be-trial" hidden></div><details class="be-yaml" hidden><summary>${esc(t("bench.preview.yaml"))}</summary><pre class="st-code"></pre></details></aside></div>
        <footer class="be-foot"><div class="be-problems" role="alert"></div><button type="button" class="st-btn" data-do="back">${esc(t("action.cancel"))}</button><button type="button" class="st-btn" data-do="save">${esc(t("bench.save"))}</button><button type="button" class="st-btn st-primary" data-do="saveRun">${esc(t("bench.save.run"))}</button></footer>`;
      this.$ = (selector) => place.querySelector(selector);
      place.onclick = (event) => this.click(event);
      place.onsubmit = (event) => event.preventDefault();
      place.addEventListener("focusin", this.focused = (event) => { const field = event.target.closest?.("[data-field]")?.dataset.field; if (TEMPLATES.includes(field)) this.last = field; });
      place.addEventListener("input", this.input = (event) => { const field = event.target.closest?.("[data-field]")?.dataset.field; if (field) this.typed.add(event.target.closest(".be-options") ? "options" : field); });
      this.draw(values);
      this.before = json(this.values());
      if (values.dataset) this.read(values.dataset, !name); else this.check();
    }

    end() {
      clearTimeout(this.wait);
      this.asked++;
      this.place.onclick = null;
      this.place.removeEventListener("focusin", this.focused);
      this.place.removeEventListener("input", this.input);
    }

    // ---- the fields

    draw(values) {
      const { Form } = studio.dataParts, { datasets, models } = this.owner.known, shared = { datasets, models };
      const place = document.createElement("div");
      place.className = "dt-form";
      this.$(".be-fields").replaceChildren(place);
      this.form = new Form(place, this.fields, values, { ...shared, changed: () => this.changed() });
      studio.evalPickers?.(this.form, this.fields.filter((s) => s.widget === "dataset"), shared);
      this.form.box("prompt").insertAdjacentHTML("beforebegin", '<div class="be-columns dt-wide" hidden></div>');
      this.form.box("metric").insertAdjacentHTML("afterend", '<div class="be-metric dt-wide"><p class="st-muted be-metric-about"></p><div class="be-options dt-form"></div></div>');
      this.dataset = this.form.values().dataset || "";
      this.metric = "";
      this.options(values.options || {});
      this.chips();
    }

    /** The options of the metric that is chosen, as a form of their own. */
    options(values = {}) {
      const name = this.form.read(this.fields.find((s) => s.name === "metric"));
      if (name === this.metric) return;
      this.metric = name;
      const metric = this.metrics.find((m) => m.name === name), place = this.$(".be-options");
      this.$(".be-metric-about").innerHTML = `${esc(metric?.help || "")} ${studio.dataParts.paperLink(metric?.paper)}`;
      place.innerHTML = "";
      this.more = metric?.options.length ? new studio.dataParts.Form(this.fresh(place), metric.options, values, { models: this.owner.known.models, changed: () => this.changed() }) : null;
      if (this.more) studio.evalPickers?.(this.more, metric.options, { models: this.owner.known.models, datasets: [] });
    }

    fresh(place) { const made = document.createElement("div"); place.replaceChildren(made); return made; }

    values() {
      const { options, name, ...found } = this.form.values(), more = this.more?.values() || {};
      return { ...found, ...(Object.keys(more).length ? { options: more } : {}) };
    }

    changed() {
      this.options();
      const dataset = this.form.values().dataset || "";
      if (dataset !== this.dataset) { this.dataset = dataset; this.read(dataset, true); } else this.soon();
    }

    /** Look into a dataset: its columns, and with `guess` what the form could be. What a person typed stays. */
    async read(dataset, guess) {
      const mine = ++this.asked;
      if (!dataset) { this.columns = []; this.chips(); return this.check(); }
      try {
        const found = await studio.call("bench_suggest", { dataset });
        if (mine !== this.asked) return;
        this.columns = found.columns;
        this.why = guess ? found.why : [];
        if (guess) {
          const kept = this.values(), made = Object.fromEntries(Object.entries(found.values).filter(([key]) => GUESSED.includes(key) && !this.typed.has(key)));
          const plain = Object.fromEntries(Object.entries(kept).filter(([key]) => !GUESSED.includes(key) || this.typed.has(key)));
          const focus = document.activeElement?.closest?.(".be-fields [data-field]")?.dataset.field;
          this.draw({ ...made, ...plain });
          if (focus) this.form.box(focus)?.querySelector("button, input, textarea, select")?.focus();
        }
        this.chips();
      } catch (error) {
        if (mine !== this.asked) return;
        this.columns = [];
        this.why = [];
        this.chips();
        return this.show(placed(error), false);
      }
      this.check();
    }

    chips() {
      const place = this.$(".be-columns"), shown = this.columns.slice(0, 40);
      place.hidden = !shown.length;
      place.innerHTML = `<span class="st-muted">${esc(t("bench.columns"))}</span>${shown.map((name) => `<button type="button" class="be-chip" data-column="${esc(name)}" title="${esc(t("bench.columns.hint", { column: name }))}">${esc(name)}</button>`).join("")}${(this.why || []).map((why) => `<p class="st-muted">${esc(t("bench.guess", { why }))}</p>`).join("")}`;
    }

    put(column) {
      const input = this.form.box(this.last).hidden ? this.form.box("prompt").querySelector("textarea") : this.form.box(this.last).querySelector("textarea, input");
      const name = /^[A-Za-z_]\w*$/.test(column) ? `{{${column}}}` : column, [from, to] = [input.selectionStart ?? input.value.length, input.selectionEnd ?? input.value.length];
      input.setRangeText(name, from, to, "end");
      input.focus();
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }

    // ---- the preview

    soon() { clearTimeout(this.wait); this.wait = setTimeout(() => this.check(), 400); }

    async check(all = false) {
      clearTimeout(this.wait);
      const mine = ++this.asked, values = this.values();
      if (!values.dataset && !all) return null;
      try {
        const found = await studio.call("bench_preview", { values });
        if (mine !== this.asked) return null;
        this.show({}, all);
        this.found = found;
        this.preview(values);
        return true;
      } catch (error) {
        if (mine !== this.asked) return null;
        this.show(placed(error), all);
        if (this.found) this.$(".be-preview").classList.add("be-stale");
        return false;
      }
    }

    /** Refusals at their fields, those of the metric's options too; what has no field stands at the foot. */
    show(errors, all) {
      const mine = Object.fromEntries(Object.entries(errors).filter(([key]) => !key.startsWith("options."))), inner = Object.fromEntries(Object.entries(errors).filter(([key]) => key.startsWith("options.")).map(([key, text]) => [key.slice(8), text]));
      for (const name of Object.keys(mine)) this.form.touched.add(name);
      if (this.more) for (const name of Object.keys(inner)) this.more.touched.add(name);
      const rest = [...this.form.showErrors(mine, all), ...(this.more ? this.more.showErrors(inner, all) : Object.values(inner))];
      this.$(".be-problems").innerHTML = rest.map((text) => `<p class="st-finding st-level-error">${esc(text)}</p>`).join("");
    }

    preview(values) {
      const { items, read, left_out, notes, doubts, yaml } = this.found, place = this.$(".be-preview"), metric = this.metrics.find((m) => m.name === (values.metric || "exact"));
      place.classList.remove("be-stale");
      const loss = metric.output === "loss";
      const question = (one) => {
        const lead = !loss && one.shown.endsWith(one.prompt) ? one.shown.slice(0, one.shown.length - one.prompt.length) : "";
        return `${lead ? `<span class="be-lead" title="${esc(t("bench.preview.before"))}">${esc(lead)}</span>` : ""}${esc(lead ? one.prompt : one.shown)}`;
      };
      const right = (one) => {
        if (one.choices.length) return `<ol class="be-choices">${one.choices.map((text, i) => `<li class="${i === one.gold ? "be-is-right" : ""}">${esc(text)}${i === one.gold ? ` <span class="st-tag">${esc(t("bench.preview.is_right"))}</span>` : ""}</li>`).join("")}</ol>`;
        if (!one.references.length) return "";
        return `<div class="be-answer"><small>${esc(t(one.references.length > 1 ? "bench.preview.any" : "bench.preview.right"))}</small>${one.references.map((text) => `<pre>${esc(text)}</pre>`).join("")}</div>`;
      };
      const tags = (one) => Object.entries(one.tags).map(([key, value]) => `<span class="st-tag">${esc(`${key}: ${value}`)}</span>`).join(" ");
      place.innerHTML = `<p class="st-muted be-count">${esc(t("bench.preview.count", { n: items.length, read }))}</p>
        ${notes.map((text) => `<p class="st-finding">${esc(text)}</p>`).join("")}${[...left_out.map((one) => t("bench.left_out", one)), ...doubts].map((text) => `<p class="st-finding st-level-warning">${esc(text)}</p>`).join("")}
        ${items.map((one, i) => `<article class="be-question"><header><b>${esc(t(loss ? "bench.preview.text" : "bench.preview.item", { n: i + 1 }))}</b>${tags(one)}</header><pre>${question(one)}</pre>${right(one)}</article>`).join("")}`;
      const file = this.$(".be-yaml");
      file.hidden = false;
      file.querySelector("pre").textContent = yaml;
      this.trial(metric, items);
    }

    trial(metric, items) {
      const place = this.$(".be-trial"), writes = metric.output === "text", key = json([metric.name, items.map((one) => one.id)]);
      place.hidden = !writes;
      if (!writes || place.dataset.key === key) return;
      place.dataset.key = key;
      const known = items.some((one) => one.references.length);
      place.innerHTML = `${known ? `<div class="be-try"><button type="button" class="st-btn st-small" data-do="tryAll">${esc(t("bench.try"))}</button><span class="st-muted">${esc(t("bench.try.about"))}</span></div>` : ""}
        <details class="be-own" ${known ? "" : "open"}><summary>${esc(t("bench.try.own"))}</summary><label for="bench-which">${esc(t("bench.try.which"))}</label><select id="bench-which">${items.map((one, i) => `<option value="${i}">${i + 1}: ${esc(one.prompt.slice(0, 90))}</option>`).join("")}</select>
        <label for="bench-answer">${esc(t("bench.try.answer"))}</label><textarea id="bench-answer" rows="2"></textarea><button type="button" class="st-btn st-small" data-do="tryOwn">${esc(t("bench.try.score"))}</button></details><div class="be-scores" id="bench-scores" aria-live="polite"></div>`;
    }

    tryAll() { return this.score({}); }
    tryOwn() { return this.score({ answer: this.$("#bench-answer").value, index: Number(this.$("#bench-which").value) }); }

    async score(more) {
      if (await this.check() === false) return;  // of what stands in the form now, so that nothing is drawn anew meanwhile
      const put = (html) => { const out = this.$("#bench-scores"); if (out) out.innerHTML = html; };
      const began = Date.now(), tick = () => put(`<p class="st-muted">${esc(t("bench.try.busy", { time: studio.duration((Date.now() - began) / 1000) }))}</p>`);
      tick();
      const timer = setInterval(tick, 1000), buttons = this.place.querySelectorAll(".be-trial button");
      for (const button of buttons) button.disabled = true;
      let html;
      try {
        const { rows, notes } = await studio.call("bench_try", { values: this.values(), ...more });
        const scores = (one) => Object.entries(one.scores).map(([name, value]) => `${name} ${studio.num(value, 3)}`).join(", ") || t("bench.try.nothing");
        html = `${notes.map((text) => `<p class="st-finding st-level-warning">${esc(text)}</p>`).join("")}<div class="be-scroll"><table class="st-table"><thead><tr><th scope="col">${esc(t("bench.try.answer.column"))}</th><th scope="col">${esc(t("bench.try.scores"))}</th><th scope="col">${esc(t("bench.try.why"))}</th></tr></thead><tbody>${rows.map((one) => `<tr><td><small>${one.index + 1} · ${esc(t(`bench.try.kind.${one.kind}`))}</small><span class="be-said">${esc(one.answer)}</span></td><td>${esc(scores(one))}</td><td>${esc(one.reason)}</td></tr>`).join("")}</tbody></table></div>`;
      } catch (error) { html = `<p class="st-error" role="alert">${esc([error.message, error.hint].filter(Boolean).join(" "))}</p>`; }
      clearInterval(timer);
      put(html);
      for (const button of buttons) button.disabled = false;
    }

    // ---- what is done with it

    click(event) {
      const column = event.target.closest("[data-column]")?.dataset.column, act = event.target.closest("[data-do]")?.dataset.do;
      if (column) this.put(column); else if (act) this[act]();
    }

    async back() {
      if (json(this.values()) !== this.before && this.typed.size && !await studio.ask(t("bench.leave"), `<p>${esc(t("bench.leave.about"))}</p>`, t("bench.leave.yes"), true)) return;
      this.owner.close();
    }

    save() { return this.keep(false); }
    saveRun() { return this.keep(true); }

    async keep(run) {
      const buttons = this.place.querySelectorAll(".be-foot button");
      for (const button of buttons) button.disabled = true;
      this.asked++;
      clearTimeout(this.wait);
      try {
        const made = await studio.call("bench_save", { values: this.values(), replace: this.name });
        studio.toast(t("bench.saved", { title: made.title, n: studio.num(made.items) }), "good", made.notes.join(" "));
        this.owner.close();
        if (run) studio.evalStart({ method: "harness", tasks: [made.task] });
      } catch (error) { this.show(placed(error), true); } finally { for (const button of buttons) button.disabled = false; }
    }
  };

  const placed = (error) => error.fields || { [error.field || "form"]: [error.message, error.hint].filter(Boolean).join(" ") };
})();
