/* The pipeline of a dataset, one card a step: what went in, what came out and why. Steps are looked at, changed, removed, added. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { icons, num } = studio.dataParts;
  const REASONS = 2;

  class Strip {
    constructor(frame, place) {
      Object.assign(this, { frame, place });
      place.addEventListener("click", (event) => this.click(event));
    }

    draw(head, open) {
      this.head = head;
      this.open = open;
      const steps = head.pipeline || [], left = this.place.querySelector("ol")?.scrollLeft;
      const at = this.at();
      this.place.innerHTML = `<ol class="dt-steps" aria-label="${esc(t("data.pipeline"))}">${steps.map((entry, i) => this.card(entry, i, i === at)).join("")}
        <li class="dt-add"><button type="button" class="st-btn st-small" data-act="add" id="data-add-step">${icons.plus}${esc(t("data.step.add"))}</button></li></ol>`;
      if (left != null && this.drawn === head.ref) this.place.querySelector("ol").scrollLeft = left;
      else { this.drawn = head.ref; this.fresh = true; }
      this.reveal();
    }

    /** Bring the end of a pipeline just opened into sight, as soon as it is on the page. */
    reveal() {
      const list = this.place.querySelector("ol");
      if (!this.fresh || !list?.clientWidth) return;
      this.fresh = false;
      list.scrollLeft = list.scrollWidth;
    }

    /** Number of the step whose version is shown. */
    at() {
      const steps = this.head.pipeline || [], found = steps.findLastIndex((s) => s.ref === this.open.ref);
      return found < 0 ? steps.length - 1 : found;
    }

    card(entry, i, now) {
      const { rows_in, rows_out, dropped, changed, reasons = [] } = entry, share = rows_in ? Math.min(1, rows_out / rows_in) : 1;
      const title = entry.title || studio.dataParts.titleOf(this.frame.state.steps, entry.step?.method);
      const seen = Boolean(entry.ref), drops = dropped && seen;
      const why = reasons.slice(0, REASONS).map((r) => `${num(r.count)} ${r.message}`);
      const rest = reasons.length - REASONS, usage = this.usage(entry.facts);
      return `<li class="dt-step${now ? " dt-now" : ""}" data-step="${i}"><button type="button" class="dt-step-open" data-act="look" ${seen ? "" : "disabled"} ${now ? 'aria-current="step"' : ""} title="${esc(seen ? t("data.step.look") : t("data.step.gone"))}">
        <b><i>${i + 1}</i>${esc(title)}</b><span class="dt-counts">${i || rows_in !== rows_out ? `${num(rows_in)} → ` : ""}${num(rows_out)}</span>
        <span class="dt-share" aria-hidden="true"><i style="width:${(share * 100).toFixed(1)}%"></i></span></button>
        <p class="dt-why" title="${esc([...reasons.map((r) => `${num(r.count)} ${r.message}`), usage].filter(Boolean).join("\n"))}">${usage ? `${esc(usage)}<br>` : ""}${why.map(esc).join(", ")}${rest > 0 ? ` ${esc(t("data.step.more_reasons", { n: rest }))}` : ""}${!why.length && changed ? esc(t("data.step.changed", { n: num(changed) })) : ""}${!why.length && !changed && !usage ? esc(t(dropped ? "data.step.dropped.n" : "data.step.no_change", { n: num(dropped) })) : ""}</p>
        <footer>${drops ? `<button type="button" class="st-link" data-act="dropped">${esc(t("data.step.dropped", { n: num(dropped) }))}</button>` : ""}
        ${this.grows(entry, i) ? `<button type="button" class="st-link" data-act="more">${esc(t("data.step.more"))}</button>` : ""}<span class="dt-step-acts"><button type="button" class="st-icon" data-act="edit" aria-label="${esc(t("data.step.edit", { title }))}" title="${esc(t("data.step.edit", { title }))}">${icons.edit}</button>
        ${i ? `<button type="button" class="st-icon" data-act="remove" aria-label="${esc(t("data.step.remove", { title }))}" title="${esc(t("data.step.remove", { title }))}">${icons.cross}</button>` : ""}</span></footer></li>`;
    }

    /** What the models that were asked have taken; what was held back. */
    usage(facts) {
      const u = facts?.usage, held = Object.entries(facts?.held_back || {}).filter(([, n]) => n);
      if (held.length) return held.map(([name, n]) => `${t(`data.split.${name}`)} ${num(n)}`).join(", ");
      return u ? [t("data.step.usage", { requests: num(u.requests), tokens: num((u.prompt_tokens || 0) + (u.completion_tokens || 0)) }), u.cost ? t("data.step.cost", { cost: studio.num(u.cost, 3) }) : ""].filter(Boolean).join(", ") : "";
    }

    /** A generation that can go on from what it made. */
    grows(entry, i) {
      const step = this.frame.state.steps.find((s) => s.name === entry.step?.method);
      return i === this.head.pipeline.length - 1 && entry.ref && step?.fields.some((f) => f.name === "continue_from");
    }

    click(event) {
      const act = event.target.closest("[data-act]")?.dataset.act, i = Number(event.target.closest("[data-step]")?.dataset.step);
      if (!act) return;
      if (act === "add") return this.frame.addStep();
      const entry = this.head.pipeline[i];
      if (act === "look") return this.frame.look(entry.ref);
      if (act === "dropped") return this.frame.look(entry.ref, "dropped");
      if (act === "more") return this.frame.startStep({ ...entry.step, count: Math.max(100, entry.rows_out * 10), continue_from: entry.ref });
      if (act === "edit") return this.edit(i);
      if (act === "remove") return this.remove(i);
    }

    /** The recipe that makes steps `from` … of this pipeline again, with some put in another's place. */
    recipe(from, steps) {
      let start = from;  // the nearest stage before whose rows are still there
      while (start > 0 && !this.head.pipeline[start - 1].ref) start--;
      const made = [...this.head.pipeline.slice(start, from).map((e) => e.step), ...steps];
      const values = made.length === 1 ? { kind: "data", ...made[0] } : { kind: "data", method: "pipeline", steps: made };
      if (start) values.dataset = this.head.pipeline[start - 1].ref;
      return { ...values, name: studio.dataParts.stem(this.head.name) };
    }

    edit(i) {
      const entry = this.head.pipeline[i], step = this.frame.state.steps.find((s) => s.name === entry.step.method);
      if (!step) return studio.toast(t("data.step.unknown", { name: entry.step.method }), "bad");
      const { method, ...values } = entry.step, later = this.head.pipeline.slice(i + 1).map((e) => e.step);
      studio.stepDialog({
        step, values, context: this.frame.context(), reads: i ? t("data.step.output", { n: i }) : "", tries: false, skip: ["name"],
        action: later.length ? t("data.step.rerun", { n: later.length + 1 }) : t("data.step.run_again"),
        wrap: (filled) => { const { name, dataset, ...rest } = filled; return this.recipe(i, [{ method, ...rest }, ...later]); },
        run: (recipe) => this.frame.submit(recipe),
      });
    }

    async remove(i) {
      const entry = this.head.pipeline[i], later = this.head.pipeline.slice(i + 1).map((e) => e.step), before = this.head.pipeline[i - 1];
      const body = later.length ? t("data.step.remove.rerun", { n: later.length }) : t("data.step.remove.last");
      if (!await studio.ask(t("data.step.remove", { title: entry.title }), `<p>${esc(body)}</p>`, t("data.step.remove.do"))) return;
      if (!later.length && before.ref) return this.frame.openVersion(before.ref);
      try { await this.frame.submit(later.length ? this.recipe(i, later) : this.recipe(i - 1, [before.step])); } catch (error) { studio.failed(error); }
    }

    /** The whole pipeline as YAML. */
    async yaml() {
      try {
        const found = await studio.call("data_pipeline", { ref: this.head.ref });
        const made = studio.dataDialog(t("data.yaml"), `<form method="dialog"><h2>${esc(t("data.yaml"))}</h2><div class="st-dialog-body"><p class="st-muted">${esc(t("data.yaml.help"))}</p><pre class="st-code" tabindex="0">${esc(found.yaml)}</pre></div>
          <footer><button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button><button type="button" class="st-btn st-primary" data-cancel>${esc(t("action.close"))}</button></footer></form>`);
        made.querySelector("[data-copy]").onclick = (event) => studio.copy(found.yaml, event.target);
      } catch (error) { studio.failed(error); }
    }

    async save() {
      const answer = await studio.ask(t("data.save"), `<p class="st-muted">${esc(t("data.save.help"))}</p><label class="st-line">${esc(t("item.name"))}<input name="name" required maxlength="60" value="${esc(this.head.name.slice(0, 60))}" autofocus></label>`, t("data.save.do"));
      if (!answer) return;
      try {
        await studio.call("data_save_pipeline", { ref: this.head.ref, name: answer.name });
        this.frame.state.pipelines = await studio.call("data_pipelines");
        studio.toast(t("data.saved", { name: answer.name }), "good");
      } catch (error) { studio.failed(error); }
    }

    /** Steps without the one that brings rows in. */
    rest(steps) { return steps.filter((s, i) => i || !this.frame.state.steps.find((k) => k.name === s.method)?.starts); }

    /** What steps do, as a list for a person. */
    told(steps) {
      const value = (v) => (typeof v === "object" ? JSON.stringify(v) : v);
      return `<ol class="dt-told">${steps.map(({ method, ...rest }) => `<li><b>${esc(studio.dataParts.titleOf(this.frame.state.steps, method))}</b> <small class="st-muted">${esc(Object.entries(rest).map(([k, v]) => `${k} = ${value(v)}`).join(", "))}</small></li>`).join("")}</ol>`;
    }

    /** The steps of a kept pipeline on the open version. */
    async apply(pipeline, open) {
      const steps = this.rest(pipeline.values.steps || []);
      if (!await studio.ask(t("data.apply", { title: pipeline.title || pipeline.name }), `<p class="st-muted">${esc(t("data.step.reads", { name: open.name }))}</p>${this.told(steps)}`, t("data.run_on.do"))) return;
      try { await this.frame.submit({ kind: "data", method: "pipeline", dataset: open.ref, steps }); } catch (error) { studio.failed(error); }
    }

    /** The same steps on other rows. */
    async runOn() {
      let steps;
      try { steps = this.rest((await studio.call("data_pipeline", { ref: this.head.ref })).values.steps); } catch (error) { return studio.failed(error); }
      if (!steps.length) return studio.toast(t("data.run_on.nothing"), "info", t("data.run_on.nothing.hint"));
      const choices = this.frame.state.datasets.filter((d) => d.stage !== "step" && d.ref !== this.head.ref);
      const answer = await studio.ask(t("data.run_on"), `${this.told(steps)}<label class="st-line">${esc(t("data.run_on.dataset"))}<input name="dataset" list="dt-run-on" required autofocus placeholder="${esc(t("data.bring.address.example"))}"><datalist id="dt-run-on">${choices.map((d) => `<option value="${esc(d.ref)}">${esc(d.label)}</option>`).join("")}</datalist></label>
        <label class="st-line">${esc(t("item.name"))}<input name="name" maxlength="80"></label>`, t("data.run_on.do"));
      if (answer) try { await this.frame.submit({ kind: "data", method: "pipeline", dataset: answer.dataset, name: answer.name, steps }); } catch (error) { studio.failed(error); }
    }
  }

  studio.DataStrip = Strip;
})();
