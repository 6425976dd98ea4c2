/* Controls laid over the plain fields of a form: several models in their order, one model, a dataset, tasks from a catalogue,
   scoring functions. The plain field stays behind and holds the value, so the form reads and checks it as it does any other. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const DATA = [["eval.pick.data.library", (d) => d.kind === "library"], ["eval.pick.data.shipped", (d) => d.kind === "shipped"], ["eval.pick.data.upload", (d) => d.kind === "upload"]];
  const TYPED_DATA = /^(hub:\S+|hf:\S+|https?:\S+|[~/.]\S*|\S+\.(jsonl?|csv|tsv|parquet|txt)|library:\S+|shipped:\S+)$/i;
  const TYPED_MODEL = /^(https?:\/\/\S+|hub:\S+|[~/.]\S*|run:\S+|library:\S+|starter)$/i;
  const SOURCES = ["suite", "own", "harness"];
  const listed = (spec, value) => (value || []).map((one) => (typeof one === "string" ? one.replaceAll("\\", "\\\\").replaceAll("\n", "\\n") : json(one))).join("\n");

  /** The plain field goes out of sight; what is drawn instead stands behind it (the form reads the first one of its box). `held` reads
      it, `put` writes it as if typed. */
  class Over {
    constructor(form, spec, context) {
      Object.assign(this, { form, spec, context, box: form.box(spec.name) });
      this.field = this.box.querySelector("textarea, input");
      this.box.classList.add("ev-over");
      for (const part of this.box.querySelectorAll("textarea, input, select")) { part.tabIndex = -1; part.classList.add("ev-behind"); part.setAttribute("aria-hidden", "true"); }
      this.label = this.box.querySelector("label");
      this.label.removeAttribute("for");
      this.label.id ||= `${form.id}-${spec.name}-label`;
      this.place = document.createElement("div");
      this.place.setAttribute("role", "group");
      this.place.setAttribute("aria-labelledby", this.label.id);
      this.field.after(this.place);
    }
    held() { return this.form.read(this.spec); }
    put(value) {
      this.field.value = Array.isArray(value) ? listed(this.spec, value) : value;
      this.field.dispatchEvent(new Event("input", { bubbles: true }));
      this.form.touched.add(this.spec.name);
      this.draw();
    }
  }

  const icon = (name) => studio.mergeIcons[name];

  /** Several models; the first is what the others are compared with. */
  class Models extends Over {
    constructor(...given) {
      super(...given);
      this.place.innerHTML = `<ol class="ev-models"></ol><button type="button" class="st-btn st-small" data-more>${studio.dataParts.icons.plus}${esc(t("eval.pick.model"))}</button>`;
      this.list = this.place.querySelector("ol");
      this.place.addEventListener("click", (event) => this.click(event));
      this.draw();
      new studio.Picker(this.place.querySelector("[data-more]"), () => this.offered(), (ref) => this.held().includes(ref) || this.put([...this.held(), ref]), { typed: TYPED_MODEL });
    }
    offered() { return this.context.models.filter((m) => !m.meta?.reward); }
    draw() {
      const held = this.held(), last = held.length - 1;
      const label = (ref) => this.context.models.find((m) => m.ref === ref)?.label || ref;
      const button = (act, i, off) => `<button type="button" class="st-icon" data-act="${act}" data-i="${i}" ${off ? "disabled" : ""} aria-label="${esc(t(`eval.pick.${act}`, { name: label(held[i]) }))}">${icon(act === "remove" ? "cross" : act)}</button>`;
      this.list.innerHTML = held.map((ref, i) => `<li><b class="ev-n">${i + 1}</b><span class="ev-model-name"><b>${esc(label(ref))}</b>${i === 0 && last > 0 ? `<span class="st-tag">${esc(t("eval.pick.first"))}</span>` : ""}<small>${esc(this.context.models.find((m) => m.ref === ref)?.detail || "")}</small></span>${button("up", i, i === 0)}${button("down", i, i === last)}${button("remove", i)}</li>`).join("");
    }
    click(event) {
      const { act, i } = event.target.closest("[data-act]")?.dataset || {}, at = Number(i), next = this.held();
      if (!act) return;
      const to = at + (act === "up" ? -1 : 1);
      if (act === "remove") next.splice(at, 1); else [next[at], next[to]] = [next[to], next[at]];
      this.put(next);
      (this.list.querySelectorAll(`[data-act="${act}"]`)[act === "remove" ? Math.min(at, next.length - 1) : to] || this.place.querySelector("[data-more]")).focus();
    }
  }

  /** One model or one dataset behind a button. */
  class One extends Over {
    constructor(form, spec, context, what) {
      super(form, spec, context);
      this.what = what;
      this.place.innerHTML = `<span class="ev-one"><button type="button" class="ev-pick"><b></b><small></small></button>${spec.default === "" || spec.optional ? `<button type="button" class="st-icon" data-clear aria-label="${esc(t("eval.pick.clear", { name: spec.title }))}">${icon("cross")}</button>` : ""}</span>`;
      this.button = this.place.querySelector(".ev-pick");
      this.draw();
      const models = what === "model";
      new studio.Picker(this.button, () => (models ? context.models.filter((m) => !m.meta?.reward || /reward|scorer/.test(spec.name)) : context.datasets), (ref) => this.put(ref),
        models ? { typed: TYPED_MODEL } : { typed: TYPED_DATA, groups: DATA, hint: "eval.pick.data.hint" });
      this.place.querySelector("[data-clear]")?.addEventListener("click", () => { this.put(""); this.button.focus(); });
    }
    draw() {
      const ref = this.held() || "", found = (this.what === "model" ? this.context.models : this.context.datasets).find((m) => m.ref === ref);
      this.button.dataset.ref = ref;
      this.button.querySelector("b").textContent = found?.label || ref || t(this.what === "model" ? "eval.pick.none" : "eval.pick.data.none");
      this.button.querySelector("small").textContent = found ? found.detail || "" : "";
      this.button.classList.toggle("ev-unset", !ref);
      const clear = this.place.querySelector("[data-clear]");
      if (clear) clear.hidden = !ref;
    }
  }

  /** Tasks: what is chosen as chips in its order, below it the catalogue with a search; another name may be typed. */
  class Tasks extends Over {
    constructor(...given) {
      super(...given);
      this.tasks = null;
      this.filter = "";
      this.place.className = "ev-tasks";
      this.place.innerHTML = `<div class="ev-chips"></div><div class="ev-catalogue"><div class="ev-find"><input type="search" placeholder="${esc(t("eval.tasks.search"))}" aria-label="${esc(t("eval.tasks.search"))}" spellcheck="false" autocomplete="off"></div><div class="ev-task-list" tabindex="-1"></div></div>`;
      this.search = this.place.querySelector("input");
      this.search.oninput = (event) => { event.stopPropagation(); this.filter = this.search.value.trim(); this.drawList(); };
      this.search.onchange = (event) => event.stopPropagation();
      this.search.onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); this.typed(); } };
      this.place.addEventListener("change", (event) => { event.stopPropagation(); const name = event.target.dataset.task; if (name) this.toggle(name, event.target.checked); });
      this.place.addEventListener("click", (event) => {
        const { drop, all, typed } = event.target.closest("button")?.dataset || {};
        if (drop) this.toggle(drop, false);
        if (all) this.put([...new Set([...this.held(), ...this.tasks.filter((task) => task.source === all).map((task) => task.name)])]);
        if (typed) this.typed();
      });
      this.draw();
      this.context.tasks().then((tasks) => { this.tasks = tasks; this.draw(); });
    }
    title(name) { return this.tasks?.find((task) => task.name === name)?.title || name; }
    toggle(name, on) { this.put(on ? [...this.held(), name] : this.held().filter((one) => one !== name)); }
    typed() {
      const name = this.search.value.trim();
      const exact = this.tasks?.find((task) => task.name === name) || (this.found?.length === 1 ? this.found[0] : null);
      if (!name) return;
      if (!this.held().includes(exact?.name || name)) this.put([...this.held(), exact?.name || name]);
      this.search.value = this.filter = "";
      this.drawList();
      this.search.focus();
    }
    draw() {
      const held = this.held();
      this.place.querySelector(".ev-chips").innerHTML = held.length ? held.map((name) => `<span class="ev-chip" title="${esc(name)}">${esc(this.title(name))}<button type="button" data-drop="${esc(name)}" aria-label="${esc(t("eval.tasks.drop", { name: this.title(name) }))}">×</button></span>`).join("") : `<span class="st-muted">${esc(t("eval.tasks.none"))}</span>`;
      this.drawList();
    }
    drawList() {
      const held = new Set(this.held()), words = this.filter.toLowerCase().split(/\s+/).filter(Boolean), place = this.place.querySelector(".ev-task-list");
      const focus = document.activeElement?.dataset?.task, top = place.scrollTop;
      if (!this.tasks) return void (place.innerHTML = `<div class="st-working">${esc(t("eval.tasks.working"))}</div>`);
      this.found = this.tasks.filter((task) => words.every((word) => `${task.name} ${task.title} ${task.about}`.toLowerCase().includes(word)));
      const line = (task) => `<label class="ev-task"><input type="checkbox" data-task="${esc(task.name)}" ${held.has(task.name) ? "checked" : ""}><span><b>${esc(task.title)}</b><small>${esc(task.about)}</small></span><span class="ev-task-facts"><span class="st-tag">${esc(t(`eval.kind.${task.kind}`))}</span>${task.items ? `<small>${esc(t("eval.tasks.items", { n: studio.num(task.items) }))}</small>` : ""}</span></label>`;
      const group = (source) => { const all = this.found.filter((task) => task.source === source); return all.length ? `<section><h4>${esc(t(`eval.tasks.${source}`))}${source === "suite" && !words.length ? `<button type="button" class="st-link" data-all="${source}">${esc(t("eval.tasks.all"))}</button>` : ""}</h4>${source === "harness" ? `<p>${esc(t("eval.tasks.harness.about"))}</p>` : ""}${all.map(line).join("")}</section>` : ""; };
      const typed = words.length && !this.tasks.some((task) => task.name === this.filter) ? `<button type="button" class="ev-typed" data-typed="1">${studio.dataParts.icons.plus}${esc(t("eval.tasks.typed", { name: this.filter }))}</button>` : "";
      place.innerHTML = SOURCES.map(group).join("") + typed;
      place.scrollTop = top;
      if (focus) place.querySelector(`[data-task="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    }
  }

  /** Functions that score an answer: chosen by name; one that needs more than its name is written as it stands in the recipe. */
  class Rewards extends Over {
    constructor(...given) {
      super(...given);
      this.place.innerHTML = `<div class="ev-chips"></div><select aria-label="${esc(t("eval.rewards.add"))}"><option value="">${esc(t("eval.rewards.add"))}</option></select>`;
      this.select = this.place.querySelector("select");
      this.select.onchange = (event) => { event.stopPropagation(); const name = this.select.value; this.select.value = ""; if (name) this.put([...this.held(), { name }]); };
      this.place.addEventListener("click", (event) => { const at = event.target.closest("[data-drop]")?.dataset.drop; if (at) this.put(this.held().filter((_, i) => i !== Number(at))); });
      this.draw();
      this.context.rewards().then((all) => { this.all = all; this.draw(); });
    }
    draw() {
      const held = this.held(), title = (one) => this.all?.find((r) => r.name === one.name)?.title || one.name || json(one);
      this.place.querySelector(".ev-chips").innerHTML = held.length ? held.map((one, i) => `<span class="ev-chip" title="${esc(json(one))}">${esc(title(one))}<button type="button" data-drop="${i}" aria-label="${esc(t("eval.tasks.drop", { name: title(one) }))}">×</button></span>`).join("") : `<span class="st-muted">${esc(t("eval.rewards.none"))}</span>`;
      this.select.innerHTML = `<option value="">${esc(t("eval.rewards.add"))}</option>` + (this.all || []).filter((r) => !held.some((one) => one.name === r.name) && !(r.options || []).some((o) => o.group === "basic" && o.type === "str" && o.default === "")).map((r) => `<option value="${esc(r.name)}">${esc(r.title)}</option>`).join("");
    }
  }

  let tasks = null, rewards = null;
  /** Lay the controls over a dialog's form. context: {models, datasets}. */
  studio.evalPickers = (form, specs, context) => {
    const shared = { ...context, tasks: () => studio.evalTasks(), rewards: () => (rewards ??= studio.call("rewards_start").then((found) => found.catalogue, () => (rewards = null, []))) };
    for (const spec of specs) {
      if (!form.box(spec.name)) continue;
      if (spec.name === "runs") studio.insight.over(form, spec, context.method === "report" ? ["evaluation", "analysis", "making", "sweep"] : ["evaluation"]);
      else if (spec.name === "tasks") new Tasks(form, spec, shared);
      else if (spec.widget === "models" && spec.type === "list") new Models(form, spec, shared);
      else if (spec.widget === "rewards" && spec.type === "list") new Rewards(form, spec, shared);
      else if (["model", "dataset"].includes(spec.widget) && spec.type === "str") new One(form, spec, shared, spec.widget);
    }
  };
  /** The catalogue of tasks; asked again after a while, because benchmarks are made meanwhile. */
  studio.evalTasks = () => {
    if (!tasks || Date.now() - tasks.at > 15000) tasks = { at: Date.now(), all: studio.call("eval_tasks").catch((error) => { tasks = null; if (!error.offline) studio.failed(error); return []; }) };
    return tasks.all;
  };
})();
