/* A step of the dataset builder: chosen from a menu, filled in a dialog made from its fields, refused at its field. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { Form } = studio.dataParts;
  const TRY = ["count", "limit", "rows", "samples", "num_samples", "n", "number", "size"];  // fields that say how much is made
  const TEN = 10;

  const paperLink = (paper) => {
    if (!paper) return "";
    const url = (String(paper).match(/https?:\/\/[^\s)]+/) || [])[0] || (/(\d{4}\.\d{4,5})/.test(paper) ? `https://arxiv.org/abs/${RegExp.$1}` : "");
    const plain = String(paper).replace(/[\s(]*https?:\/\/[^\s)]+\)?/, "").trim(), text = plain || url.replace(/^https:\/\/arxiv\.org\/abs\//, "arXiv:").replace(/^https:\/\//, "");
    return url ? `<a class="dt-paper" href="${esc(url)}" target="_blank" rel="noopener noreferrer">${esc(text)}</a>` : `<span class="dt-paper">${esc(text)}</span>`;
  };

  /** The field by which a generation is cut short to try it, or null. */
  const tryField = (step) => step.group === "make" && TRY.map((name) => step.fields.find((f) => f.name === name && f.type === "int")).find(Boolean) || null;

  const dialog = (label, html, className = "") => {
    const made = document.createElement("dialog");
    made.className = `st-dialog ${className}`;
    made.setAttribute("aria-label", label);
    made.innerHTML = html;
    made.addEventListener("close", () => made.remove());
    made.addEventListener("click", (event) => { if (event.target === made || event.target.closest("[data-cancel]")) made.close(); });
    document.body.append(made);
    made.showModal();
    return made;
  };

  /**
   * The dialog of one step.
   * @param options {step, values, reads: what it reads, context: {models, datasets}, errors: shown at once, action: words of the button,
   *   skip: fields that are not asked for, note: instead of the sentence about what it reads, wrap: values of the step -> recipe to check, run: recipe values -> Promise, tries: offer "Try 10",
   *   whole: its dataset is a field like any other, edited: told the values after an edit}
   */
  studio.stepDialog = ({ step, values = {}, reads = "", context, errors = null, action = "", wrap, run, tries = true, skip = [], note = "", whole = false, edited = null }) => {
    const some = tries ? tryField(step) : null, sample = tries && !some && step.group === "make" && values.dataset;
    const made = dialog(step.title, `<form method="dialog" novalidate><h2>${esc(step.title)}</h2><div class="st-dialog-body">
      <p class="st-muted dt-about">${esc(step.summary)} ${paperLink(step.paper)}</p>${reads ? `<p class="dt-reads">${esc(note || t("data.step.reads", { name: reads }))}</p>` : ""}
      <div class="dt-form"></div><div class="dt-problems" role="alert"></div></div>
      <footer><span class="dt-estimate st-muted"></span><button type="button" class="st-btn" data-cancel>${esc(t("action.cancel"))}</button>
      ${some || sample ? `<button type="button" class="st-btn" data-try>${esc(t("data.step.try"))}</button>` : ""}
      <button type="submit" class="st-btn st-primary">${esc(action || t(some || sample ? "data.step.all" : "data.step.run"))}</button></footer></form>`, "dt-dialog");
    const problems = made.querySelector(".dt-problems"), buttons = [...made.querySelectorAll("footer .st-btn:not([data-cancel])")];
    let wait, asked = 0;
    const form = new Form(made.querySelector(".dt-form"), step.fields, values, { ...context, starts: step.starts && !whole, refs: step.name === "import" ? ["sources"] : [], skip: [...skip, ...(!whole && (reads || !step.starts && values.dataset) ? ["dataset"] : [])], changed: () => { edited?.(form.values()); clearTimeout(wait); wait = setTimeout(check, 350); } });
    if (!form.specs.length) made.querySelector(".dt-form").innerHTML = `<p class="st-muted">${esc(t("data.step.plain"))}</p>`;
    const filled = () => ({ ...(!whole && values.dataset && !("dataset" in form.values()) ? { dataset: values.dataset } : {}), ...form.values() });
    const recipe = (more = {}) => (wrap ? wrap({ ...filled(), ...more }) : { kind: "data", method: step.name, ...filled(), ...more });
    const show = (found, all) => {
      const rest = form.showErrors(found, all);
      problems.innerHTML = rest.map((message) => `<p class="st-finding st-level-error">${esc(message)}</p>`).join("");
    };
    const check = async (all = false) => {
      const mine = ++asked;
      const found = await studio.call("validate", { values: recipe() }).catch((error) => ({ ok: false, errors: error.fields || { [error.field || "recipe"]: `${error.message} ${error.hint || ""}` } }));
      if (mine !== asked || !made.isConnected) return null;
      show(placed(found.errors || {}, step, values), all);
      const disk = found.estimate?.disk, seconds = found.estimate?.seconds;
      made.querySelector(".dt-estimate").textContent = [seconds != null && t("estimate.about", { time: studio.duration(seconds) }), disk && t("data.step.disk", { size: studio.bytes(disk) })].filter(Boolean).join(" · ");
      return found.ok;
    };
    /** Ten rows of the dataset first, then the step on them alone. */
    const sampled = ({ kind, method, dataset, name, ...rest }) => ({ kind, method: "pipeline", dataset, ...(name ? { name } : {}), steps: [{ method: "sample", rows: TEN }, { method, ...rest }] });
    const start = async (more, ten = false) => {
      for (const button of buttons) button.disabled = true;
      try {
        if ((await check(true)) === false) return;
        const answer = await run(ten ? sampled(recipe()) : recipe(more), ten || Boolean(Object.keys(more).length));
        if (answer) made.close();
      } catch (error) {
        show(placed(error.fields || { [error.field || "recipe"]: `${error.message} ${error.hint || ""}`.trim() }, step, values), true);
      } finally { for (const button of buttons) button.disabled = false; }
    };
    made.querySelector("form").onsubmit = (event) => { event.preventDefault(); start({}); };
    const few = made.querySelector("[data-try]");
    if (few) few.onclick = () => (some ? start({ [some.name]: Math.min(TEN, Number(filled()[some.name] ?? some.default) || TEN) }) : start({}, true));
    if (errors) show(errors, true); else check();
    made.form = form;
    (made.querySelector('.dt-field:not([hidden]) :is(input, textarea, select)') || made.querySelector("[type=submit]")).focus();
    return made;
  };

  /** Errors of a pipeline say "step 2 (dedup, keep): …"; here they belong to the field they name. */
  function placed(errors, step) {
    const found = {};
    for (const [name, message] of Object.entries(errors)) {
      const inner = name === "steps" && /^step \d+ \((\w+), (\w+)\): (.*)$/is.exec(message);
      if (inner && inner[1] === step.name && step.fields.some((f) => f.name === inner[2])) found[inner[2]] = inner[3];
      else found[name] = message;
    }
    return found;
  }

  /** The menu of steps, and of pipelines {name, title, for_whom?, values}. Resolves to {step} or {pipeline}, or null. */
  studio.stepMenu = (steps, groups, title, { ready = [], saved: kept = [] } = {}) => new Promise((resolve) => {
    let answer = null;
    const made = dialog(title, `<form method="dialog"><h2>${esc(title)}</h2><div class="dt-menu-find"><input type="search" placeholder="${esc(t("data.menu.search"))}" aria-label="${esc(t("data.menu.search"))}" autofocus></div>
      <div class="st-dialog-body dt-menu"></div><footer><button type="button" class="st-btn" data-cancel>${esc(t("action.close"))}</button></footer></form>`, "dt-menu-dialog");
    const place = made.querySelector(".dt-menu"), input = made.querySelector("input");
    const item = (s) => `<li><button type="button" data-step="${esc(s.name)}"><b>${esc(s.title)}</b><span>${esc(s.summary)}</span></button>${paperLink(s.paper)}</li>`;
    const draw = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), match = (text) => words.every((w) => text.toLowerCase().includes(w));
      const found = steps.filter((s) => match(`${s.title} ${s.summary} ${s.name} ${s.paper || ""}`));
      const parts = groups.filter((g) => found.some((s) => s.group === g)).map((g) => `<section><h3>${esc(t(`data.menu.${g}`))}</h3><ul>${found.filter((s) => s.group === g).map(item).join("")}</ul></section>`);
      for (const [key, list] of [["saved", kept], ["ready", ready]]) {
        const shown = list.map((p, i) => [p, i]).filter(([p]) => match(`${p.title} ${p.name} ${p.for_whom || ""}`));
        if (shown.length) parts.push(`<section><h3>${esc(t(`data.menu.${key}`))}</h3><ul>${shown.map(([p, i]) => `<li><button type="button" data-list="${key}" data-place="${i}" data-pipeline="${esc(p.name)}"><b>${esc(p.title || p.name)}</b><span>${esc(p.for_whom || "")}</span><span class="dt-path">${esc(stepsLine(p, steps))}</span></button></li>`).join("")}</ul></section>`);
      }
      place.innerHTML = parts.join("") || `<div class="st-empty"><b>${esc(t("data.menu.none"))}</b></div>`;
    };
    input.oninput = draw;
    made.querySelector("form").onsubmit = (event) => { event.preventDefault(); place.querySelector("button[data-step], button[data-pipeline]")?.click(); };
    place.onclick = (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      answer = button.dataset.step ? { step: steps.find((s) => s.name === button.dataset.step) } : { pipeline: (button.dataset.list === "saved" ? kept : ready)[Number(button.dataset.place)] };
      made.close();
    };
    made.addEventListener("close", () => resolve(answer));
    draw();
  });
  const stepsLine = (pipeline, steps) => (pipeline.values.steps || []).map((s) => studio.dataParts.titleOf(steps, s.method)).join(" → ");

  studio.dataDialog = dialog;
  studio.dataParts.paperLink = paperLink;
  studio.dataParts.stepsLine = stepsLine;
})();
