/* "Add to a pipeline": a draft of steps that survives a reload, put together from the forms of the tabs, started as one run. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-flow-draft", LINK = "step:";
  const LINKED = { model: "model", base_model: "model", models: "model", adapters: "model", dataset: "dataset", eval_dataset: "dataset", sources: "dataset" };
  const OPTIONAL = ["base_model", "eval_dataset"];

  const empty = () => ({ name: "", steps: [] });
  const kept = () => { try { return { ...empty(), ...JSON.parse(localStorage.getItem(KEY)) }; } catch { return empty(); } };
  const keep = (draft) => { try { localStorage.setItem(KEY, JSON.stringify(draft)); } catch { /* a full or forbidden storage keeps nothing */ } };
  const makes = (step) => (step.kind === "data" ? "dataset" : ["publish", "eval", "look"].includes(step.kind) ? null : "model");
  const fieldName = (name) => (LINKED[name] ? t(`flow.field.${name}`) : t("flow.field.other", { name }));

  /** Every place of a step that names a model or a dataset: a field, one of a list, or one inside the configuration of a merge. */
  function slots(step) {
    const found = [], put = (wanted, title, ...path) => found.push({ wanted, title, path });
    for (const [name, wanted] of Object.entries(LINKED)) {
      if (typeof step[name] === "string" && (step[name] || !OPTIONAL.includes(name))) put(wanted, name, name);
      if (Array.isArray(step[name])) step[name].forEach((_, i) => put(wanted, name, name, i));
    }
    const { models = [], slices = [], base_model } = step.config || {};
    models.forEach((_, i) => put("model", "models", "config", "models", i, "model"));
    slices.forEach(({ sources = [] }, i) => sources.forEach((_, j) => put("model", "models", "config", "slices", i, "sources", j, "model")));
    if (base_model) put("model", "base_model", "config", "base_model");
    return found;
  }
  const held = (step, path) => path.reduce((value, key) => value?.[key], step);
  const put = (step, path, value) => { held(step, path.slice(0, -1))[path.at(-1)] = value; };

  function freeId(draft, wanted) {
    const taken = draft.steps.map((step) => step.id);
    let id = wanted, n = 1;
    while (taken.includes(id)) id = `${wanted}-${(n += 1)}`;
    return id;
  }

  /** A new step goes on with what the last fitting one makes. */
  function add(draft, values) {
    const { schema_version, ...recipe } = values;
    const step = { id: freeId(draft, recipe.kind === "sft" ? "tuned" : recipe.kind === "align" ? "aligned" : recipe.kind), ...recipe };
    const earlier = [...draft.steps].reverse().find((one) => makes(one) === "model");
    if (earlier && "model" in step) step.model = LINK + earlier.id;
    if (earlier && Array.isArray(step.models) && !step.models.length) step.models = [LINK + earlier.id];
    draft.steps.push(step);
    keep(draft);
    return step;
  }

  class Dialog {
    constructor() { this.draft = kept(); }

    async open() {
      const [ready, found] = await Promise.all([studio.call("flow_presets"), studio.call("library")]);
      this.ready = ready;
      this.known = { model: found.models, dataset: found.datasets };
      const dialog = (this.dialog = document.createElement("dialog"));
      dialog.className = "st-dialog fl-dialog";
      dialog.setAttribute("aria-label", t("flow.title"));
      dialog.innerHTML = `<form method="dialog"><h2>${esc(t("flow.title"))}</h2><div class="st-dialog-body">
        <p class="st-muted">${esc(t("flow.lead"))}</p>
        <div class="fl-top"><label><span>${esc(t("flow.name"))}</span><input data-name maxlength="80" autocomplete="off"></label>
          <label><span>${esc(t("flow.ready"))}</span><select data-ready><option value="">${esc(t("flow.ready.none"))}</option>${this.ready.map((p, i) => `<option value="${i}">${esc(p.title)}</option>`).join("")}</select></label></div>
        <ol class="fl-steps"></ol><textarea class="fl-yaml" spellcheck="false" hidden aria-label="${esc(t("flow.yaml"))}"></textarea>
        <div class="fl-tools"><button type="button" class="st-btn st-small" data-merge>${esc(t("flow.merge"))}</button>
          <button type="button" class="st-btn st-small" data-yaml>${esc(t("flow.yaml"))}</button><button type="button" class="st-btn st-small" data-clear>${esc(t("flow.clear"))}</button></div></div>
        <footer><div class="fl-told" role="status"></div><button type="button" class="st-btn" data-cancel>${esc(t("action.close"))}</button>
        <button type="submit" class="st-btn st-primary" data-start disabled>${esc(t("flow.start"))}</button></footer></form>`;
      this.$ = (selector) => dialog.querySelector(selector);
      this.$("[data-name]").oninput = (event) => { this.draft.name = event.target.value; this.changed(); };
      this.$("[data-ready]").onchange = (event) => this.take(this.ready[Number(event.target.value)]?.values);
      this.$("[data-merge]").onclick = () => { add(this.draft, { kind: "merge", method: "adapter", model: "" }); this.draw(); };
      this.$("[data-clear]").onclick = () => { this.draft = empty(); this.draw(); };
      this.$("[data-yaml]").onclick = () => this.turn();
      this.$("[data-cancel]").onclick = () => dialog.close();
      this.$(".fl-steps").onclick = (event) => this.press(event.target.closest("button"));
      this.$(".fl-steps").onchange = (event) => this.edit(event.target);
      this.$("form").onsubmit = (event) => { event.preventDefault(); this.start(); };
      dialog.onclose = () => { dialog.remove(); window.dispatchEvent(new CustomEvent("studio:flow")); };
      document.body.append(dialog);
      dialog.showModal();
      this.draw();
    }

    take(values) {
      if (!values) return;
      this.draft = { name: values.name || "", steps: (values.steps || []).map((step, i) => ({ ...step, id: step.id || `step-${i + 1}` })) };
      this.draw();
    }

    draw() {
      this.$("[data-name]").value = this.draft.name;
      this.$("[data-ready]").value = "";
      this.$("[data-merge]").hidden = !this.draft.steps.some((step) => makes(step) === "model");
      const place = this.$(".fl-steps");
      place.innerHTML = this.draft.steps.length ? this.draft.steps.map((step, i) => this.step(step, i)).join("")
        : `<li class="st-empty"><b>${esc(t("flow.empty"))}</b><p>${esc(t("flow.empty.hint"))}</p></li>`;
      this.changed();
    }

    step(step, i) {
      const before = this.draft.steps.slice(0, i), last = i === this.draft.steps.length - 1;
      const row = ({ wanted, title, path }) => {
        const now = held(step, path), fitting = before.filter((one) => makes(one) === wanted).map((one) => [LINK + one.id, t("flow.result_of", { name: one.id })]);
        const known = this.known[wanted].map((item) => [item.ref, item.label]);
        if (![...fitting, ...known].some(([ref]) => ref === now)) known.unshift([now, now || "–"]);
        const options = (pairs) => pairs.map(([ref, text]) => `<option value="${esc(ref)}" ${ref === now ? "selected" : ""}>${esc(text)}</option>`).join("");
        return `<label><span>${esc(t("flow.uses", { field: fieldName(title) }))}</span><select data-i="${i}" data-path="${esc(JSON.stringify(path))}">
          ${fitting.length ? `<optgroup label="${esc(t("flow.earlier"))}">${options(fitting)}</optgroup>` : ""}<optgroup label="${esc(t("flow.library"))}">${options(known)}</optgroup></select></label>`;
      };
      return `<li class="fl-step"><div class="fl-head"><span class="fl-n">${i + 1}</span><b>${esc(studio.methodOf(step.kind, step.method).title)}</b><span class="st-tag">${esc(t(`kind.${step.kind}`))}</span>
        <input class="fl-id" data-i="${i}" data-id value="${esc(step.id)}" aria-label="${esc(t("flow.id"))}" maxlength="40" spellcheck="false">
        <span class="fl-move"><button type="button" class="st-icon" data-up="${i}" ${i ? "" : "disabled"} aria-label="${esc(t("flow.up", { name: step.id }))}">↑</button>
        <button type="button" class="st-icon" data-down="${i}" ${last ? "disabled" : ""} aria-label="${esc(t("flow.down", { name: step.id }))}">↓</button>
        <button type="button" class="st-icon" data-drop="${i}" aria-label="${esc(t("flow.drop", { name: step.id }))}">×</button></span></div>
        <div class="fl-links">${slots(step).map(row).join("")}</div></li>`;
    }

    press(button) {
      if (!button) return;
      const { steps } = this.draft, { up, down, drop } = button.dataset;
      if (drop !== undefined) steps.splice(Number(drop), 1);
      else if (up !== undefined || down !== undefined) {
        const from = Number(up ?? down), to = from + (up !== undefined ? -1 : 1);
        [steps[from], steps[to]] = [steps[to], steps[from]];
      }
      this.draw();
    }

    edit(input) {
      const step = this.draft.steps[Number(input.dataset.i)];
      if (!step) return;
      if ("id" in input.dataset) {
        const old = LINK + step.id;
        step.id = input.value.trim();
        for (const one of this.draft.steps) for (const { path } of slots(one)) if (held(one, path) === old) put(one, path, LINK + step.id);
      } else {
        put(step, JSON.parse(input.dataset.path), input.value);
      }
      this.draw();
    }

    values() { return { kind: "flow", method: "chain", name: this.draft.name, steps: this.draft.steps }; }

    async turn() {
      const text = this.$(".fl-yaml"), steps = this.$(".fl-steps"), button = this.$("[data-yaml]");
      try {
        if (text.hidden) text.value = await studio.call("flow_write", { values: this.values() });
        else this.take(await studio.call("flow_read", { text: text.value }));
      } catch (error) { return this.tell([error.message, error.hint].filter(Boolean).join(" "), true); }
      text.hidden = !text.hidden;
      steps.hidden = !text.hidden;
      button.textContent = t(text.hidden ? "flow.yaml" : "flow.steps");
      this.$("[data-start]").disabled = !text.hidden || this.bad;
      if (!text.hidden) text.focus();
    }

    changed() {
      keep(this.draft);
      clearTimeout(this.wait);
      this.$("[data-start]").disabled = this.bad = true;
      if (!this.draft.steps.length) return this.tell("");
      const mine = (this.asked = (this.asked || 0) + 1);
      this.wait = setTimeout(async () => {
        try {
          const found = await studio.call("validate", { values: this.values() });
          if (mine !== this.asked) return;
          const wrong = Object.values(found.errors || {})[0], n = this.draft.steps.length, seconds = found.estimate?.seconds;
          this.bad = Boolean(wrong);
          this.tell(wrong || (seconds != null ? t("flow.time", { n, time: studio.duration(seconds) }) : t("flow.ok", { n })), this.bad);
          this.$("[data-start]").disabled = this.bad;
        } catch (error) { if (mine === this.asked) this.tell(error.message, true); }
      }, 250);
    }

    tell(text, bad = false) {
      const place = this.$(".fl-told");
      place.textContent = text;
      place.classList.toggle("st-is-bad", bad);
    }

    async start() {
      this.$("[data-start]").disabled = true;
      try {
        const run = await studio.call("submit", { values: this.values() });
        keep(empty());
        this.dialog.close();
        window.dispatchEvent(new CustomEvent("studio:runs"));
        studio.openRun(run.id);
      } catch (error) { this.tell([error.message, error.hint].filter(Boolean).join(" "), true); }
    }
  }

  const open = async () => { try { await new Dialog().open(); } catch (error) { studio.failed(error); } };

  /* In a tab that trains: one button that adds the form as it stands, one that shows the pipeline. On the list of runs: only the latter. */
  studio.parts.flow = ({ root, props }) => {
    const draw = () => {
      const n = kept().steps.length;
      root.innerHTML = `<div class="fl-buttons">${props.tab ? `<button type="button" class="st-btn" data-add id="${esc(props.tab)}-flow-add" title="${esc(t("flow.add.hint"))}">${esc(t("flow.add"))}</button>` : ""}
        ${props.tab && !n ? "" : `<button type="button" class="st-btn" data-open>${esc(t("flow.open"))}${n ? ` <span class="st-count">${n}</span>` : ""}</button>`}</div>`;
      const button = root.querySelector("[data-add]");
      if (button) button.onclick = () => {
        const form = studio.forms[props.tab];
        if (!form) return;
        const draft = kept(), step = add(draft, form.values);
        studio.say(t("flow.added", { name: step.id, n: draft.steps.length }));
        open();
      };
      const show = root.querySelector("[data-open]");
      if (show) show.onclick = open;
    };
    window.addEventListener("studio:flow", draw);
    draw();
  };
})();
