/* The editor of a mergekit configuration: method, models or slices, parameters, tokenizer. The form holds the configuration itself. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const COLOURS = ["--st-accent", "--st-c4", "--st-c1", "--st-c3", "--st-c2", "--st-c5"];
  const TYPES = ["float32", "bfloat16", "float16"], TEMPLATES = ["auto", "chatml", "alpaca", "llama3", "mistral", "exaone"];
  const TYPED = /^(hub:\S+|[~/.]\S*|run:\S+|library:\S+|step:\S+|starter\S*)$/i;
  const icon = (path) => `<svg width="15" height="15" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${path}</svg>`;
  const ICONS = (studio.mergeIcons = { up: icon('<path d="m4 9.5 4-4 4 4"/>'), down: icon('<path d="m4 6.5 4 4 4-4"/>'), cross: icon('<path d="m4.5 4.5 7 7M11.5 4.5l-7 7"/>'), copy: icon('<rect x="5.5" y="5.5" width="7" height="7" rx="1.2"/><path d="M3.5 10.5v-7h7"/>'), grip: icon('<path d="M6 4h.01M10 4h.01M6 8h.01M10 8h.01M6 12h.01M10 12h.01"/>') });

  /* The methods in an order for reading; one that is new to us stands at the end. */
  const KINDS = { blend: ["slerp", "linear", "nuslerp", "multislerp", "karcher", "nearswap", "arcee_fusion", "model_stock"],
    changes: ["task_arithmetic", "ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl"], stack: ["passthrough"], other: [] };
  let known = null; // mergekit's methods; asked for once
  const start = () => (known ??= studio.call("merge_methods").catch((error) => { known = null; throw error; }));
  /** A configuration of our own: what gradio hands out may be a live object. */
  const clone = (value) => JSON.parse(json(value ?? {}));
  const get = (config, path) => path.reduce((value, key) => value?.[key], config);
  function put(config, path, value) {
    const [key, ...rest] = path;
    if (!rest.length) { if (value === undefined) delete config[key]; else config[key] = value; return; }
    config[key] ??= typeof rest[0] === "number" ? [] : {};
    put(config[key], rest, value);
    if (key === "parameters" && !Object.keys(config[key]).length) delete config[key];
  }
  /** models[0].parameters.weight and models.0.parameters.weight are one place. */
  const place = (path) => String(path || "").replace(/\[(\w+)\]/g, ".$1").replace(/^\./, "");
  /** What the newest look at the configuration found: {config, found | error}; `studio:merging` is sent when it changes. */
  studio.merging = null;
  studio.mergeMethods = start;

  class Editor {
    constructor({ root, props, watch }) {
      Object.assign(this, { root, props, tab: root.dataset.tab, config: clone(props.value), values: [], kept: {}, models: [], wide: false });
      watch("value", () => { if (json(clone(props.value)) !== json(this.config)) { this.config = clone(props.value); this.wide = false; this.draw(); this.look(); } });
      root.addEventListener("click", (event) => this.click(event));
      root.addEventListener("change", (event) => this.change(event));
      root.addEventListener("keydown", ({ key, target }) => { if (target.name === "mg-method") this.keyed = key.startsWith("Arrow"); });
      root.addEventListener("pointerdown", () => { this.keyed = false; }, true);
      window.addEventListener("studio:form", (event) => event.detail === this.tab && root.isConnected && this.asked && this.asked !== json(this.options()) && this.look());
      root.addEventListener("pointerdown", (event) => this.grip(event));
      for (const name of ["studio:runs-ended", "studio:tab"]) window.addEventListener(name, (event) => root.isConnected && (name !== "studio:tab" || event.detail === this.tab) && this.refresh());
      this.load();
    }

    async load() {
      try {
        [this.methods] = await Promise.all([start(), this.refresh()]);
        this.draw();
        this.look();
      } catch (error) {
        this.root.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p><button type="button" class="st-btn st-small" data-do="again">${esc(t("panel.again"))}</button></div>`;
      }
    }

    async refresh() {
      const { models } = await studio.call("library");
      this.models = models.filter((m) => !m.meta?.reward && !m.meta?.format);
    }

    get spec() { return this.methods?.find((one) => one.name === this.config.merge_method); }
    get sliced() { return Array.isArray(this.config.slices); }
    get based() { return ["required", "optional"].includes(this.spec?.base); }

    /** Every model that the configuration names, in its order. */
    used() {
      const { models = [], slices = [], base_model } = this.config;
      return [...new Set([...models.map((m) => m.model), ...slices.flatMap((s) => (s.sources || []).map((one) => one.model)), base_model].filter((ref) => typeof ref === "string" && ref))];
    }
    facts(ref) { return studio.merging?.found?.models?.find((m) => m.ref === ref); }
    label(ref) { return (ref?.model ? `${ref.model}${ref.lora ? `+${ref.lora}` : ""}` : String(ref || "")).split("+").map((part) => this.models.find((m) => m.ref === part)?.label || this.facts(part)?.label || part).join(" + "); }
    colour(ref) { return COLOURS[Math.max(0, this.used().indexOf(ref)) % COLOURS.length]; }
    layers() { return studio.merging?.found?.layers || 0; }

    commit() {
      this.props.value = clone(this.config);
      this.look();
    }

    /** The other fields of the recipe, of which some say what is allowed. */
    options() {
      const { config, kind, method, schema_version, name, ...rest } = studio.forms[this.tab]?.values || {};
      return rest;
    }

    /* What is asked of the core about the configuration as it stands. */
    look() {
      clearTimeout(this.timer);
      this.timer = setTimeout(async () => {
        const config = clone(this.config), asked = json(config), options = this.options();
        let told;
        this.asked = json(options);
        if (!config.merge_method) told = null;
        else try { told = { config, found: await studio.call("merge_check", { config, options }) }; } catch (error) { told = { config, error }; }
        if (asked !== json(this.config) || !this.root.isConnected) return;
        studio.merging = told;
        for (const value of this.values) value.relayer();
        if (this.sliced) this.slices?.paint();
        this.tell();
        window.dispatchEvent(new CustomEvent("studio:merging"));
      }, 300);
    }

    /** Each finding at the part it speaks of: the longest path that is drawn. */
    tell() {
      for (const old of this.root.querySelectorAll(".mg-problem")) old.remove();
      const places = [...this.root.querySelectorAll("[data-at]")];
      for (const problem of studio.merging?.found?.problems || []) {
        if (!problem.path && problem.level !== "error") continue; // of the whole: said beside the form
        const path = place(problem.path), fits = places.filter((p) => p.dataset.at && (path === p.dataset.at || path.startsWith(`${p.dataset.at}.`)));
        const at = fits.sort((a, b) => b.dataset.at.length - a.dataset.at.length)[0] || this.root.querySelector(".mg-rest");
        const note = document.createElement("p");
        note.className = `mg-problem mg-level-${problem.level || "error"}`;
        note.innerHTML = `<b>${esc(problem.message)}</b>${problem.hint ? ` ${esc(problem.hint)}` : ""}`;
        at?.append(note);
      }
    }

    /** Bring the place of a finding into sight. */
    goto(path) {
      const at = place(path), all = [...this.root.querySelectorAll("[data-at]")].filter((p) => p.dataset.at && (at === p.dataset.at || at.startsWith(`${p.dataset.at}.`))).sort((a, b) => b.dataset.at.length - a.dataset.at.length);
      (all[0] || this.root).scrollIntoView({ block: "center", behavior: "smooth" });
      (all[0] || this.root).querySelector("input:not([tabindex='-1']), select, button")?.focus({ preventScroll: true });
    }

    draw(focus) {
      if (!this.methods) return;
      const { config, spec } = this;
      this.values = [];
      this.root.innerHTML = `<div class="mg-head"><div><div class="st-visually-hidden">${esc(studio.worded(this.root.dataset.title))}</div><div class="st-info">${esc(studio.worded(this.root.dataset.help))}</div></div>
        <div class="st-actions"><button type="button" class="st-btn st-small" data-do="import">${esc(t("mg.import"))}</button><button type="button" class="st-btn st-small" data-do="export" ${config.merge_method ? "" : "disabled"}>${esc(t("mg.export"))}</button></div></div>
        <div class="mg-rest"></div>${this.method()}${config.modules ? `<p class="st-finding">${esc(t("mg.modules"))}</p>` : spec ? this.body() : ""}`;
      this.fill();
      this.tell();
      if (focus) this.root.querySelector(focus)?.focus();
    }

    body() {
      const { spec } = this, shared = spec.parameters.filter((p) => p.scope === "shared");
      return `<section class="mg-part"><header><h3>${esc(t(this.sliced ? "mg.slices" : "mg.models"))}</h3><small>${esc(this.count())}</small>
          <span class="mg-segments" role="group" aria-label="${esc(t("mg.shape"))}">${["models", "slices"].map((way) => `<button type="button" data-way="${way}" aria-pressed="${(way === "slices") === this.sliced}">${esc(t(`mg.way.${way}`))}</button>`).join("")}</span></header>
          ${this.based ? this.base() : ""}${this.sliced ? '<div class="mg-sliced" data-at="slices"></div>' : this.list()}</section>
        ${shared.length ? `<section class="mg-part" data-at="parameters"><header><h3>${esc(t("mg.shared"))}</h3><small>${esc(t("mg.shared.about"))}</small></header><div class="mg-params">${shared.map((p) => this.slot(["parameters", p.name])).join("")}${this.odd(["parameters"], spec.parameters)}</div></section>` : this.odd(["parameters"], spec.parameters)}
        <section class="mg-part"><header><h3>${esc(t("mg.result"))}</h3></header><div class="mg-grid">${this.outcome()}</div></section>`;
    }

    /* Method: the chosen one, or all of them as cards. */
    method() {
      const { spec } = this, wide = (this.wide ||= !spec);
      const card = (one) => `<div class="mg-way"><label><input type="radio" name="mg-method" value="${esc(one.name)}" ${one === spec ? "checked" : ""}><b>${esc(one.title)}</b><span>${esc(one.help)}</span></label>
        <small>${esc(t(`mg.base.${one.base}`))}</small>${one.paper ? `<a href="${esc(one.paper)}" target="_blank" rel="noopener noreferrer" aria-label="${esc(t("methods.paper.of", one))}">${esc(t("methods.paper"))}</a>` : ""}</div>`;
      const listed = Object.values(KINDS).flat(), of = (kind) => (kind === "other" ? this.methods.filter((one) => !listed.includes(one.name)) : KINDS[kind].map((name) => this.methods.find((one) => one.name === name)).filter(Boolean));
      const group = (kind) => (of(kind).length ? `<fieldset class="mg-ways"><legend>${esc(t(`mg.kind.${kind}`))}</legend>${of(kind).map(card).join("")}</fieldset>` : "");
      return `<section class="mg-part mg-methods" data-at="merge_method"><header><h3>${esc(t("mg.method"))}</h3>${spec ? `<button type="button" class="st-link mg-fold" data-do="methods" aria-expanded="${wide}">${esc(wide ? t("methods.fewer") : t("mg.method.more", { n: this.methods.length - 1 }))}</button>` : `<small>${esc(t("mg.method.ask"))}</small>`}</header>
        ${wide ? Object.keys(KINDS).map(group).join("") : `<fieldset class="mg-ways mg-one"><legend class="st-visually-hidden">${esc(t("mg.method"))}</legend>${card(spec)}</fieldset>`}</section>`;
    }

    count() {
      const { min_models: least, max_models: most, base } = this.spec, { min_non_base: few, max_non_base: many } = this.spec, n = few ?? least;
      if (most === 1) return t("mg.count.one");
      if (most && most === least) return t(base === "required" ? "mg.count.exact.base" : "mg.count.exact", { n: most });
      if (few && few === many) return t("mg.count.beside", { n: few });
      return n > 1 ? t("mg.count.least", { n }) : "";
    }

    pickButton(path, label) {
      const ref = get(this.config, path) || "", model = this.models.find((m) => m.ref === ref), detail = model?.detail || (ref && ref !== this.label(ref) ? ref : "");
      return `<button type="button" class="mg-pick" data-pick='${json(path)}' data-ref="${esc(ref)}" aria-label="${esc(label)}: ${esc(this.label(ref) || t("mg.pick"))}"><i style="background:var(${ref ? this.colour(ref) : "--st-line-strong"})"></i><b>${esc(this.label(ref) || t("mg.pick"))}</b><small>${esc(detail)}</small></button>`;
    }

    base() {
      const ref = this.config.base_model;
      return `<div class="mg-base" data-at="base_model"><span class="mg-base-name">${esc(t("mg.base"))}<small>${esc(t(`mg.base.${this.spec.base}`))}</small></span>${this.pickButton(["base_model"], t("mg.base"))}
        ${ref && this.spec.base === "optional" ? `<button type="button" class="st-icon" data-do="nobase" aria-label="${esc(t("mg.base.none"))}">${ICONS.cross}</button>` : ""}</div>`;
    }

    list() {
      const rows = (this.config.models || []).map((one, i, all) => {
        const name = this.label(one.model) || t("mg.pick"), act = (what, svg, off) => `<button type="button" class="st-icon" data-model="${what}" data-i="${i}" ${off ? "disabled" : ""} aria-label="${esc(t(`mg.model.${what}`, { name }))}" title="${esc(t(`mg.model.${what}`, { name }))}">${svg}</button>`;
        const base = this.based && one.model && one.model === this.config.base_model;
        return `<li class="mg-model" data-i="${i}" data-at="models.${i}"><div class="mg-model-head"><span class="mg-grip" data-grip="${i}" aria-hidden="true" title="${esc(t("mg.model.drag"))}">${ICONS.grip}</span>${this.pickButton(["models", i, "model"], t("mg.model", { n: i + 1 }))}
          ${base ? `<span class="st-tag">${esc(t("mg.base.is"))}</span>` : this.based && one.model ? `<button type="button" class="st-link mg-make-base" data-model="base" data-i="${i}">${esc(t("mg.base.make"))}</button>` : ""}
          <span class="mg-acts">${act("up", ICONS.up, i === 0)}${act("down", ICONS.down, i === all.length - 1)}${act("remove", ICONS.cross)}</span></div>
          <div class="mg-params">${this.ownValues(["models", i], one.model)}</div></li>`;
      });
      const full = this.spec.max_models && rows.length >= this.spec.max_models;
      return `<ol class="mg-list" data-at="models">${rows.join("") || `<li class="st-empty"><b>${esc(t("mg.models.none"))}</b><p>${esc(t("mg.models.none.hint"))}</p></li>`}</ol>
        <button type="button" class="st-btn mg-add" data-add ${full ? "disabled" : ""}>${esc(t("mg.model.add"))}</button>`;
    }

    /** Places for the parameters that a model has of its own; the base has none of those for the others. */
    ownValues(path, ref, base = this.config.base_model) {
      const own = this.spec.parameters.filter((p) => p.scope === "input" || (p.scope === "non_base" && (!this.based || ref !== base)));
      return own.map((p) => this.slot([...path, "parameters", p.name])).join("") + this.odd([...path, "parameters"], this.spec.parameters);
    }

    /** Shared parameters of one slice alone, folded away until there are some. */
    sliceValues(si) {
      const path = ["slices", si, "parameters"], shared = this.spec.parameters.filter((p) => p.scope === "shared" && p.type !== "bool"), now = get(this.config, path);
      return shared.length ? `<details class="mg-own" ${now ? "open" : ""}><summary>${esc(t("mg.slice.own"))}</summary><div class="mg-params">${shared.map((p) => this.slot([...path, p.name])).join("")}</div></details>` : "";
    }

    slot(path) { return `<div data-value='${json(path)}'></div>`; }

    odd(path, parameters) {
      const names = Object.keys(get(this.config, path) || {}).filter((name) => !parameters.some((p) => p.name === name));
      return names.map((name) => `<p class="mg-odd" data-at="${[...path, name].join(".")}">${esc(t("mg.odd", { name, method: this.spec.title }))} <button type="button" class="st-link" data-odd='${json([...path, name])}'>${esc(t("mg.odd.drop"))}</button></p>`).join("");
    }

    outcome() {
      const { config } = this, template = config.chat_template || "", tokenizer = config.tokenizer?.source ?? config.tokenizer_source ?? "";
      const select = (name, options, now, path = name) => `<label data-at="${path}"><span>${esc(t(`mg.${name}`))}</span><select data-set="${name}">${options.map(([value, text]) => `<option value="${esc(value)}" ${value === now ? "selected" : ""}>${esc(text)}</option>`).join("")}</select><small>${esc(t(`mg.${name}.help`))}</small></label>`;
      const types = (now) => [["", t("mg.dtype.same")], ...[...new Set([...TYPES, now].filter(Boolean))].map((one) => [one, t("mg.dtype.of", { name: one })])];
      const refs = [...new Set([...this.used(), ...(tokenizer && !["base", "union"].includes(tokenizer) ? [tokenizer] : [])])];
      return select("out_dtype", types(config.out_dtype), config.out_dtype || "") + select("dtype", types(config.dtype), config.dtype || "")
        + select("tokenizer", [["", t("mg.tokenizer.copy")], ["base", t("mg.tokenizer.base")], ["union", t("mg.tokenizer.union")], ...refs.map((ref) => [ref, t("mg.tokenizer.of", { name: this.label(ref) })])], tokenizer, config.tokenizer ? "tokenizer" : "tokenizer_source")
        + `<label data-at="chat_template"><span>${esc(t("mg.template"))}</span>${/[{\n]/.test(template) ? `<textarea data-set="template" rows="3" spellcheck="false">${esc(template)}</textarea>` : `<input data-set="template" list="mg-templates" value="${esc(template)}" placeholder="${esc(t("mg.template.same"))}" spellcheck="false" autocomplete="off">`}<datalist id="mg-templates">${TEMPLATES.map((name) => `<option>${name}</option>`).join("")}</datalist><small>${esc(t("mg.template.help"))}</small></label>`;
    }

    /** Pickers, values and slices into the places that were drawn for them. */
    fill() {
      const place = this.root.querySelector(".mg-sliced");
      this.slices = place && this.spec ? new studio.MergeSlices(place, this) : null;
      for (const slot of this.root.querySelectorAll("[data-value]")) {
        const path = JSON.parse(slot.dataset.value), spec = this.spec.parameters.find((p) => p.name === path.at(-1)), inherited = path[0] === "parameters" ? undefined : get(this.config, ["parameters", spec.name]);
        const inSlice = path[0] === "slices", layers = () => (inSlice ? this.span(path[1]) : this.layers());
        this.values.push(new studio.mergeValues.Value(slot, spec, get(this.config, path), { path: path.join("."), layers, from: typeof inherited === "number" ? inherited : spec.default,
          onchange: (value) => { put(this.config, path, value); this.commit(); } }));
      }
      for (const button of this.root.querySelectorAll(".mg-pick")) this.picker(button, JSON.parse(button.dataset.pick));
      const add = this.root.querySelector("[data-add]");
      if (add) new studio.Picker(add, () => this.models, (ref) => this.add(ref), { hint: "mg.pick.hint", typed: TYPED });
    }

    span(si) { const [from, to] = this.config.slices[si].sources[0].layer_range || [0, 0]; return to - from; }

    picker(button, path) {
      new studio.Picker(button, () => this.models, (ref) => {
        put(this.config, path, ref);
        this.commit();
        this.draw(`[data-pick='${json(path)}']`);
      }, { hint: "mg.pick.hint", typed: TYPED });
    }

    /** What a model begins with: only what the method cannot do without. */
    begin(scopes) {
      const needed = this.spec.parameters.filter((p) => p.required && scopes.includes(p.scope));
      return Object.fromEntries(needed.map((p) => [p.name, p.default ?? (p.name === "t" ? (p.high && p.high < 0.1 ? p.high / 10 : 0.5) : 1)]));
    }

    add(ref) {
      const list = (this.config.models ??= []), alone = this.spec.max_models === 2 && this.spec.base === "required";
      if (alone && !this.config.base_model && !list.length) this.config.base_model = ref; // one of the two has to be it
      const own = this.based && this.config.base_model === ref ? {} : this.begin(["input", "non_base"]);
      list.push({ model: ref, ...(Object.keys(own).length ? { parameters: own } : {}) });
      this.commit();
      this.draw(".mg-add:not(:disabled)");
    }

    /** Another method keeps what it knows of the parameters; the rest comes back when one goes back. */
    choose(name) {
      const { config } = this, before = config.merge_method;
      if (before) this.kept[before] = clone(config);
      config.merge_method = name;
      const { spec } = this, old = this.kept[name];
      const fit = (holder, was, scopes) => {
        const now = Object.fromEntries(Object.entries({ ...was?.parameters, ...holder.parameters }).filter(([key]) => spec.parameters.some((p) => p.name === key && scopes.includes(p.scope))));
        const made = { ...this.begin(scopes), ...now };
        if (Object.keys(made).length) holder.parameters = made; else delete holder.parameters;
      };
      if (!config.models && !config.slices && !config.modules) config.models = [];
      if (!this.based) delete config.base_model; else if (old?.base_model) config.base_model ??= old.base_model;
      fit(config, old, ["shared"]);
      if (this.based && spec.max_models === 2 && config.models?.length) config.base_model ??= config.models[0].model;
      const scopes = (one) => (this.based && one.model === config.base_model ? ["input"] : ["input", "non_base"]);
      (config.models || []).forEach((one) => fit(one, old?.models?.find((m) => m.model === one.model), scopes(one)));
      for (const slice of config.slices || []) slice.sources.forEach((one) => fit(one, null, scopes(one)));
      this.wide = this.wide && Boolean(this.keyed); // the arrow keys go through all of them
      this.commit();
      this.draw(this.wide ? "input[name=mg-method]:checked" : ".mg-fold");
    }

    /** Whole models or slices; what the other way held is kept for coming back. */
    way(way) {
      const { config } = this;
      if ((way === "slices") === this.sliced) return;
      if (way === "slices") {
        const held = config.models || [], base = config.base_model;
        const all = base && this.spec.base === "required" && !held.some((m) => m.model === base) ? [{ model: base }, ...held] : held;
        const source = (one) => ({ ...one, layer_range: [0, this.facts(one.model)?.layers || 1] });
        const made = this.spec.max_models === 1 ? all.map((one) => ({ sources: [source(one)] })) : [{ sources: all.map(source) }];
        this.kept.models = held;
        delete config.models;
        config.slices = this.kept.slices || (all.length ? made : [{ sources: [{ model: "", layer_range: [0, 1] }] }]);
      } else {
        this.kept.slices = config.slices;
        const seen = new Map(config.slices.flatMap((slice) => slice.sources).map(({ layer_range, ...one }) => [one.model, one]));
        delete config.slices;
        config.models = this.kept.models || [...seen.values()].filter((one) => one.model);
      }
      this.commit();
      this.draw(`[data-way=${way}]`);
    }

    change({ target }) {
      if (target.name === "mg-method") return this.choose(target.value);
      const { set } = target.dataset, value = target.value.trim() || undefined, { config } = this;
      if (!set) return;
      if (set === "tokenizer") { if (config.tokenizer) { if (value) config.tokenizer.source = value; else delete config.tokenizer; } else put(config, ["tokenizer_source"], value); }
      else put(config, [set === "template" ? "chat_template" : set], value);
      this.commit();
    }

    async click(event) {
      const { do: act, model, i, way, odd } = event.target.closest("[data-do], [data-model], [data-way], [data-odd]")?.dataset || {};
      if (act === "again") return this.load();
      if (act === "methods") { this.wide = !this.wide; return this.draw(this.wide ? "input[name=mg-method]:checked" : ".mg-fold"); }
      if (act === "nobase") { delete this.config.base_model; this.commit(); return this.draw(".mg-base .mg-pick"); }
      if (act === "import") return this.bring();
      if (act === "export") return this.save();
      if (way) return this.way(way);
      if (odd) { put(this.config, JSON.parse(odd), undefined); this.commit(); return this.draw(); }
      if (!model) return;
      const at = Number(i), list = this.config.models;
      if (model === "base") this.makeBase(list[at]);
      if (model === "remove") list.splice(at, 1);
      const to = at + (model === "up" ? -1 : 1);
      if (model === "up" || model === "down") [list[at], list[to]] = [list[to], list[at]];
      this.commit();
      this.draw();
      const rows = this.root.querySelectorAll(".mg-model"), row = rows[Math.min(model === "up" || model === "down" ? to : at, rows.length - 1)];
      (row?.querySelector(`[data-model=${model}]:not(:disabled)`) || row?.querySelector("[data-model]:not(:disabled)") || this.root.querySelector("[data-add]"))?.focus();
    }

    makeBase(one) {
      const was = (this.config.models || []).find((m) => m.model === this.config.base_model);
      this.config.base_model = one.model;
      const gone = this.spec.parameters.filter((p) => p.scope === "non_base").map((p) => p.name);
      for (const name of gone) put(one, ["parameters", name], undefined);
      if (was && was !== one) was.parameters = { ...this.begin(["input", "non_base"]), ...was.parameters };
      if (was?.parameters && !Object.keys(was.parameters).length) delete was.parameters;
    }

    /** Rows follow the pointer that holds their grip; the order counts when it lets go. */
    grip(event) {
      const handle = event.target.closest("[data-grip]");
      if (!handle || event.button) return;
      const row = handle.closest(".mg-model"), list = row.parentElement;
      event.preventDefault();
      row.classList.add("mg-drags");
      const move = (e) => {
        const other = [...list.querySelectorAll(".mg-model:not(.mg-drags)")].find((r) => e.clientY < r.getBoundingClientRect().top + r.offsetHeight / 2);
        if (other !== row.nextElementSibling) list.insertBefore(row, other || null);
      };
      const up = () => {
        removeEventListener("pointermove", move);
        const held = this.config.models, order = [...list.querySelectorAll(".mg-model")].map((r) => Number(r.dataset.i));
        row.classList.remove("mg-drags");
        if (order.every((n, at) => n === at)) return;
        this.config.models = order.map((n) => held[n]);
        this.commit();
        this.draw();
      };
      addEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) addEventListener(name, up, { once: true });
    }

    /* mergekit's own file: in and out. */
    async bring() {
      const done = studio.ask(t("mg.import"), `<p class="st-muted">${esc(t("mg.import.help"))}</p><input type="file" accept=".yml,.yaml,.json,.txt" aria-label="${esc(t("mg.import.file"))}">
        <textarea name="text" class="mg-yaml" rows="14" required spellcheck="false" aria-label="${esc(t("mg.import.text"))}" placeholder="merge_method: slerp"></textarea>`, t("mg.import.go"));
      const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1);
      dialog.querySelector("[type=file]").onchange = async (event) => { const file = event.target.files[0]; if (file) dialog.querySelector("textarea").value = await file.text(); };
      const answer = await done;
      if (!answer) return;
      try {
        this.config = clone(await studio.call("merge_import", { text: answer.text }));
        this.commit();
        this.draw("[data-do=import]");
        studio.say(t("mg.imported"));
      } catch (error) { studio.failed(error); }
    }

    async save() {
      try {
        const text = await studio.call("merge_export", { config: this.config });
        const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "text/yaml" })), download: "mergekit.yaml" });
        link.click();
        URL.revokeObjectURL(link.href);
      } catch (error) { studio.failed(error); }
    }
  }
  studio.parts.merge = (context) => { studio.mergeEditor = new Editor(context); };
})();
