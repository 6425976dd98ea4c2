/* The form: errors where they were typed, sections that fold, tables of name and value, and the estimate beside it. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  studio.forms = {};
  const touched = {};

  const box = (tab, name) => document.getElementById(`${tab}-${name.toLowerCase()}`);
  const input = (place) => place?.querySelector("input:not([type=hidden]), textarea, select");

  function showErrors(tab, state) {
    const seen = (touched[tab] ??= new Set());
    for (const old of document.querySelectorAll(`#${tab}-body .st-error`)) old.remove();
    for (const bad of document.querySelectorAll(`#${tab}-body [aria-invalid=true]`)) bad.removeAttribute("aria-invalid");
    for (const bad of document.querySelectorAll(`#${tab}-body .st-bad`)) bad.classList.remove("st-bad");
    const shown = [];
    for (const [name, message] of Object.entries(state.errors || {})) {
      const place = box(tab, name);
      if (!place || !(state.refused || state.started || seen.has(name) || state.changed?.includes(name))) continue;
      const note = document.createElement("p");
      note.className = "st-error";
      note.id = `${tab}-${name.toLowerCase()}-error`;
      note.textContent = message;
      place.append(note);
      place.classList.add("st-bad");
      const field = input(place);
      field?.setAttribute("aria-invalid", "true");
      field?.setAttribute("aria-describedby", note.id);
      shown.push(place);
    }
    return shown;
  }

  function refuse(tab, state, shown) {
    const first = shown[0], reason = state.refused;
    if (!first) return studio.toast(reason.message, "bad", reason.hint || "");
    for (const place of shown) open(place.closest(".st-section"), true);
    first.scrollIntoView({ block: "center", behavior: "smooth" });
    input(first)?.focus({ preventScroll: true });
    studio.say(reason.message);
    if (reason.hint) studio.toast(reason.message, "bad", reason.hint);
  }

  studio.parts.formstate = ({ props, watch }) => {
    const tab = props.tab;
    const take = () => {
      const state = props.value || {};
      if (!state.values) return;
      studio.forms[tab] = state;
      const shown = showErrors(tab, state);
      marks(tab, state);
      if (state.refused) refuse(tab, state, shown);
      if (state.started) studio.lives?.[tab]?.show(state.started, true);
      window.dispatchEvent(new CustomEvent("studio:form", { detail: tab }));
    };
    watch("value", take);
    take();
  };

  /* Sections fold without being taken out of the page, so that a closed one keeps its values and errors. */
  function open(section, wide) {
    if (!section) return;
    section.dataset.closed = wide ? "no" : "yes";
    section.querySelector("[data-st-toggle]")?.setAttribute("aria-expanded", String(wide));
  }
  const isOpen = (section) => (section.dataset.closed ? section.dataset.closed === "no" : !section.classList.contains("st-starts-closed"));
  document.addEventListener("click", (event) => {
    const head = event.target.closest?.("[data-st-toggle]");
    if (head) { const section = head.closest(".st-section"); open(section, !isOpen(section)); }
  });

  /** How many fields of a group differ from their default. */
  function marks(tab, state) {
    const count = {};
    for (const name of state.changed || []) {
      const group = state.groups?.[name];
      if (group) count[group] = (count[group] || 0) + 1;
    }
    for (const section of document.querySelectorAll(`#${tab}-body .st-section`)) {
      const group = section.id.replace(`${tab}-group-`, ""), head = section.querySelector("[data-st-toggle]");
      if (!head) continue;
      let mark = head.querySelector(".st-count");
      if (!mark) { mark = document.createElement("span"); mark.className = "st-count"; head.append(mark); }
      mark.textContent = count[group] && group !== "basic" ? t("form.changed", { n: count[group] }) : "";
    }
    for (const place of document.querySelectorAll(`#${tab}-body .st-field`)) {
      const name = place.id.slice(tab.length + 1);
      place.classList.toggle("st-changed", (state.changed || []).some((n) => n.toLowerCase() === name));
    }
  }
  document.addEventListener("focusout", (event) => {
    const place = event.target.closest?.(".st-field"), body = event.target.closest?.(".st-body");
    if (!place || !body) return;
    const tab = body.id.replace(/-body$/, ""), state = studio.forms[tab];
    const name = Object.keys(state?.titles || {}).find((n) => `${tab}-${n.toLowerCase()}` === place.id);
    if (!name) return;
    (touched[tab] ??= new Set()).add(name);
    if (state.errors?.[name]) showErrors(tab, state);
  });

  /* A table of name and value, e.g. more settings. */
  studio.parts.pairs = ({ root, props, watch }) => {
    let own = null;
    const rows = () => (Array.isArray(props.value) ? props.value : []);
    const send = () => {
      const value = [...root.querySelectorAll(".st-pair")].map((row) => [...row.querySelectorAll("input")].map((i) => i.value));
      own = JSON.stringify(value.filter(([k, v]) => k || v));
      props.value = value.filter(([k, v]) => k || v);
    };
    const add = (name = "", value = "", focus = false) => {
      const row = document.createElement("div");
      row.className = "st-pair";
      row.innerHTML = `<input list="${root.dataset.list}" placeholder="${esc(t("pairs.name"))}" aria-label="${esc(studio.worded(props.title))}: ${esc(t("pairs.name"))}">
        <input placeholder="${esc(t("pairs.value"))}" aria-label="${esc(studio.worded(props.title))}: ${esc(t("pairs.value"))}">
        <button type="button" class="st-icon" aria-label="${esc(t("pairs.remove"))}">×</button>`;
      const [a, b] = row.querySelectorAll("input");
      a.value = name; b.value = value;
      row.addEventListener("change", send);
      row.querySelector("button").onclick = () => { row.remove(); send(); };
      root.querySelector(".st-pair-rows").append(row);
      if (focus) a.focus();
    };
    const draw = () => {
      root.dataset.list ||= `st-names-${props.kind}-${props.field}`;
      root.innerHTML = `<div class="st-label">${esc(studio.worded(props.title))}</div><div class="st-info">${esc(studio.worded(props.help))}</div>
        <div class="st-pair-rows"></div><button type="button" class="st-btn st-small">${esc(t("pairs.add"))}</button>
        <datalist id="${root.dataset.list}"></datalist>`;
      root.querySelector("button.st-small").onclick = () => add("", "", true);
      for (const [name, value] of rows()) add(name, value);
      names();
    };
    const names = () => {
      const list = root.querySelector("datalist");
      list.innerHTML = (props.names || []).map(([name, help]) => `<option value="${esc(name)}">${esc(help)}</option>`).join("");
    };
    watch("value", () => { if (JSON.stringify(rows()) !== own) { own = null; draw(); } });
    draw();
  };

  /* An optional part that is all that is missing: installed as a run, when asked. */
  async function install(tab, button, part) {
    button.disabled = true;
    button.textContent = t("estimate.installing", part);
    try {
      const { id } = await studio.call("submit", { values: { kind: "setup", method: "extra", extra: part.name, name: part.title } });
      let run;
      do {
        await new Promise((done) => setTimeout(done, 700));
        run = await studio.call("run", { run: id });
      } while (!["succeeded", "failed", "stopped", "lost"].includes(run.state));
      if (run.state !== "succeeded") throw { message: t("estimate.not_installed", part), hint: [run.reason, run.hint].filter(Boolean).join(" ") };
      studio.toast(t("estimate.installed", part));
      studio.send(`open_${tab}`, { check: true });
      return true;
    } catch (error) {
      studio.toast(error.message, "bad", error.hint || "");
      button.disabled = false;
      button.textContent = t("estimate.install", part);
      return false;
    }
  }
  studio.installPart = install;

  /* What the run will take. */
  studio.parts.estimate = ({ root, props }) => {
    const draw = () => {
      const state = studio.forms[props.tab];
      if (!state) return;
      const found = state.estimate || {}, problems = Object.entries(state.errors || {});
      const tile = (label, value) => `<div><dt>${esc(label)}</dt><dd>${esc(value)}</dd></div>`;
      const tiles = [
        found.steps != null && tile(t("estimate.steps"), studio.num(found.steps)),
        found.seconds != null && tile(t("estimate.time"), t("estimate.about", { time: studio.duration(found.seconds) })),
        found.memory != null && tile(t("estimate.memory"), studio.bytes(found.memory)),
        found.disk != null && tile(t("estimate.disk"), studio.bytes(found.disk)),
        found.device && tile(t("estimate.device"), found.device === "cpu" ? t("estimate.cpu") : found.device),
      ].filter(Boolean).join("");
      const blocking = problems.length
        ? `<ul class="st-problems">${problems.map(([name, text]) => `<li><a href="#" data-field="${esc(name)}">${esc(studio.worded(state.titles[name]) || name)}</a> ${esc(studio.worded(text))}</li>`).join("")}</ul>` : "";
      root.innerHTML = `<h2>${esc(t("estimate.title"))}</h2>${problems.length ? "" : `<dl class="st-tiles">${tiles}</dl>`}
        ${(found.notes || []).map((note) => `<p class="st-note">${esc(note)}</p>`).join("")}${blocking}${state.install ? `<button type="button" class="st-btn st-install">${esc(t("estimate.install", state.install))}</button>` : ""}`;
      studio.drawRoom(root, props.tab, state);
      const offer = root.querySelector(".st-install");
      if (offer) offer.onclick = () => install(props.tab, offer, state.install);
      for (const link of root.querySelectorAll("[data-field]"))
        link.onclick = (event) => {
          event.preventDefault();
          const place = box(props.tab, link.dataset.field);
          if (!place) return;
          open(place.closest(".st-section"), true);
          place.scrollIntoView({ block: "center", behavior: "smooth" });
          input(place)?.focus({ preventScroll: true });
        };
    };
    window.addEventListener("studio:form", (event) => event.detail === props.tab && draw());
    root.innerHTML = `<h2>${esc(t("estimate.title"))}</h2>`;
    draw();
  };
})();
