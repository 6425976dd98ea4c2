/* Shared by every part of the page: words, numbers, theme, the bus between tabs, polling that rests when not seen. */
(() => {
  "use strict";
  const data = window.STUDIO || { language: "en", languages: [], strings: {}, words: {}, texts: {}, tabs: [] };
  const english = data.strings, words = data.words;
  const studio = (window.studio = { bus: null });

  /** Text of a key with {name} places filled in. */
  studio.t = (key, values = {}) =>
    (words[key] ?? english[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

  /** Whether there are words for a key. */
  studio.known = (key) => key in english;

  studio.esc = (text) =>
    String(text ?? "").replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);

  /** Seconds as "42 s", "3 min 05 s", "2 h 10 min". */
  studio.duration = (seconds) => {
    if (seconds == null || !isFinite(seconds)) return "–";
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };

  /** Bytes as "3.1 GB". */
  studio.bytes = (n) => {
    if (n == null || !isFinite(n)) return "–";
    const units = ["B", "kB", "MB", "GB", "TB"];
    let i = 0;
    while (n >= 1000 && i < units.length - 1) { n /= 1000; i++; }
    return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
  };

  /** A measured number in few digits; NaN and infinities by name. */
  studio.num = (v, digits = 4) => {
    if (v === null || v === undefined) return "–";
    if (typeof v === "string") return v;
    if (!isFinite(v)) return String(v);
    const a = Math.abs(v);
    if (a !== 0 && (a < 1e-3 || a >= 1e6)) return v.toExponential(2).replace("e+", "e");
    return a >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(digits));
  };

  studio.ago = (unix) => {
    const s = Date.now() / 1000 - unix;
    if (s < 60) return studio.t("time.now");
    if (s < 3600) return studio.t("time.minutes", { n: Math.floor(s / 60) });
    if (s < 86400) return studio.t("time.hours", { n: Math.floor(s / 3600) });
    return new Date(unix * 1000).toLocaleDateString();
  };

  /* The server side of the page: functions of components/rpc.py, and handlers registered with Shell.on_open. */
  let connect;
  const server = new Promise((resolve) => (connect = resolve));
  studio.ready = (functions, send) => { connect(functions); studio.bus = send; waiting.splice(0).forEach((args) => send(...args)); };
  const waiting = [];
  studio.send = (name, detail = {}) => (studio.bus ? studio.bus(name, detail) : waiting.push([name, detail]));

  /** Ask the core. Resolves to its answer; rejects with {message, hint, field}, or {offline: true} when nobody answers. */
  studio.call = async (name, values = {}) => {
    const functions = await server;
    let answer = null;
    try { answer = await functions[name](values); } catch { answer = null; }
    if (answer && "ok" in answer) return studio.said(answer.ok);
    if (answer && answer.error) { const error = studio.said(answer.error); throw Object.assign(new Error(error.message), error); }
    throw Object.assign(new Error(studio.t("app.offline")), { hint: studio.t("app.offline.hint"), offline: true });
  };

  /* Parts of the page: a script registers studio.parts.NAME; gr.HTML elements made by widgets.mounted call it. */
  studio.parts = {};
  studio.mount = (name, context) => {
    const part = studio.parts[name];
    if (!part) return console.error(`no part named ${name}`);
    part(Object.assign(context, { root: context.element.querySelector(".st-mount, .st-pairs") || context.element }));
  };

  /** A passing message; errors stay until dismissed. */
  studio.toast = (text, kind = "info", hint = "") => {
    let place = document.getElementById("st-toasts");
    if (!place) {
      place = Object.assign(document.createElement("div"), { id: "st-toasts" });
      place.setAttribute("role", "status");
      place.setAttribute("aria-live", "polite");
      document.body.append(place);
    }
    const note = document.createElement("div");
    note.className = `st-toast st-toast-${kind}`;
    note.innerHTML = `<div><b>${studio.esc(text)}</b>${hint ? `<p>${studio.esc(hint)}</p>` : ""}</div>
      <button type="button" aria-label="${studio.esc(studio.t("action.dismiss"))}">×</button>`;
    note.querySelector("button").onclick = () => note.remove();
    place.append(note);
    if (kind !== "bad") setTimeout(() => note.remove(), 5000);
  };
  studio.failed = (error) => studio.toast(error.message, "bad", error.hint || "");

  /** A modal dialog: html inside, resolves to the form's values, or null when dismissed. */
  studio.ask = (title, html, action, danger = false) =>
    new Promise((resolve) => {
      const dialog = document.createElement("dialog");
      dialog.className = "st-dialog";
      dialog.setAttribute("aria-label", title);
      dialog.innerHTML = `<form method="dialog"><h2>${studio.esc(title)}</h2><div class="st-dialog-body">${html}</div>
        <footer><button type="button" class="st-btn" data-cancel>${studio.esc(studio.t(action ? "action.cancel" : "action.close"))}</button>
        ${action ? `<button type="submit" class="st-btn ${danger ? "st-danger" : "st-primary"}">${studio.esc(action)}</button>` : ""}
        </footer></form>`;
      let answer = null;
      dialog.querySelector("[data-cancel]").onclick = () => dialog.close();
      dialog.querySelector("form").onsubmit = (event) => { answer = Object.fromEntries(new FormData(event.target)); };
      dialog.onclose = () => { dialog.remove(); resolve(answer); };
      document.body.append(dialog);
      dialog.showModal();
    });

  /** plotly.js, loaded when the first chart needs it. */
  let plotly = null;
  studio.plotly = () =>
    (plotly ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `studio/vendor/plotly.min.js?v=${data.version}`;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => { plotly = null; reject(new Error(studio.t("chart.missing"))); };
      document.head.append(script);
    }));

  /** What is known of a method: {title, summary, paper, group, shape}. */
  studio.methodOf = (kind, method) => data.methods?.[`${kind}/${method}`] || { title: method, summary: "", paper: "", group: "", shape: "" };
  /** All methods of a kind: [[name, facts], …]. */
  studio.methodsOf = (kind) => Object.entries(data.methods || {}).filter(([key]) => key.startsWith(`${kind}/`)).map(([key, facts]) => [key.slice(kind.length + 1), facts]);
  /** Title of a run's method. */
  studio.method = (run) => studio.methodOf(run.kind, run.method).title;

  /** Kinds of runs that train a model, and the tab each is started from. */
  studio.tabOf = { sft: "finetune", pretrain: "pretrain", align: "align" };
  studio.trains = (kind) => kind in studio.tabOf;
  /** Kinds of runs that have a form to go back to, and its tab. */
  studio.formOf = { ...studio.tabOf, merge: "merge" };

  const STATES = ["queued", "starting", "running", "stopping", "succeeded", "failed", "stopped", "lost"];
  studio.active = (state) => STATES.indexOf(state) < 4;
  studio.pill = (state) => `<span class="st-pill st-is-${studio.esc(state)}"><i aria-hidden="true"></i>${studio.esc(studio.t(`state.${state}`))}</span>`;

  /** A tiny line of numbers as SVG. */
  studio.spark = (values, width = 84, height = 22) => {
    const seen = values.filter((v) => typeof v === "number" && isFinite(v));
    if (seen.length < 2) return `<svg class="st-spark" width="${width}" height="${height}" aria-hidden="true"></svg>`;
    const low = Math.min(...seen), span = Math.max(...seen) - low || 1;
    const points = seen.map((v, i) => `${((i / (seen.length - 1)) * (width - 2) + 1).toFixed(1)},${(height - 2 - ((v - low) / span) * (height - 4)).toFixed(1)}`);
    return `<svg class="st-spark" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" aria-hidden="true"><polyline points="${points.join(" ")}"/></svg>`;
  };

  /** Show a tab without telling its Python side anything. */
  studio.show = (tab) => document.getElementById(`tab-${tab}-button`)?.click();
  studio.tabNow = () => document.querySelector("#tabs button[role=tab][aria-selected=true]")?.id.match(/^tab-(.+)-button$/)?.[1];

  /** Show a tab and hand it a detail. */
  studio.open = (tab, detail = {}) => { studio.show(tab); studio.send(`open_${tab}`, detail); };

  /** Run id in the address, so that a reload or a shared link finds it. */
  studio.param = (name) => new URL(location.href).searchParams.get(name);
  studio.setParam = (name, value) => {
    const url = new URL(location.href);
    if (value) url.searchParams.set(name, value); else url.searchParams.delete(name);
    history.replaceState(history.state, "", url);
  };

  /** Call fn every ms while the element is on screen and the page visible; ends itself when the element is gone. */
  studio.poll = (element, ms, fn) => {
    let busy = false;
    const tick = async () => {
      if (!element.isConnected) return clearInterval(timer);
      if (busy || document.visibilityState !== "visible" || !element.getClientRects().length) return;
      busy = true;
      try { await fn(); } catch (error) { console.warn("poll:", error); } finally { busy = false; }
    };
    const timer = setInterval(tick, ms);
    tick();
    return tick;
  };

  studio.copy = async (text, button) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
    }
    if (button) {
      const before = button.textContent;
      button.textContent = studio.t("action.copied");
      setTimeout(() => (button.textContent = before), 1200);
    }
  };

  /* Arrow keys move between the views of a card. */
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tab = event.target.closest?.(".st-views [role=tab]");
    if (!step || !tab) return;
    const all = [...tab.parentElement.querySelectorAll("[role=tab]")], next = all[(all.indexOf(tab) + step + all.length) % all.length];
    next.focus();
    next.click();
    event.preventDefault();
  });

  /** Tell a screen reader. */
  studio.say = (text) => {
    let region = document.getElementById("st-live");
    if (!region) {
      region = Object.assign(document.createElement("div"), { id: "st-live", className: "st-visually-hidden" });
      region.setAttribute("role", "status");
      region.setAttribute("aria-live", "polite");
      document.body.append(region);
    }
    region.textContent = text;
  };

  /* Theme: the person's choice, else the system's. Gradio sets its own class while it starts, hence the observer. */
  const KEY = "studio-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  studio.dark = () => {
    const chosen = localStorage.getItem(KEY);
    return chosen ? chosen === "dark" : system.matches;
  };
  const paint = () => {
    const dark = studio.dark();
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    if (document.body && document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
  };
  studio.toggleTheme = () => {
    localStorage.setItem(KEY, studio.dark() ? "light" : "dark");
    paint();
    window.dispatchEvent(new CustomEvent("studio:theme"));
  };
  paint();
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    new MutationObserver(paint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  });
  system.addEventListener("change", () => { paint(); window.dispatchEvent(new CustomEvent("studio:theme")); });

  /** The value of a colour token, for charts. */
  studio.token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* Tab in the address: ?tab=runs opens there. A tab shown again hears of it, to refresh what it offers. */
  document.addEventListener("click", (event) => {
    const name = event.target.closest?.("button[role=tab]")?.id.match(/^tab-(.+)-button$/)?.[1];
    if (!name) return;
    event.target.closest("button").scrollIntoView({ block: "nearest", inline: "center" });
    studio.setParam("tab", name);
    studio.setParam("run", studio.shownRun?.(name) || null);
    studio.send(`refresh_${name}`);
    window.dispatchEvent(new CustomEvent("studio:tab", { detail: name }));
  });
  const boot = setInterval(() => {
    if (!document.querySelector("#tabs button[role=tab]")) return;
    clearInterval(boot);
    const wanted = studio.param("tab") || (studio.param("run") ? "runs" : null), run = studio.param("run");
    if (wanted && data.tabs.includes(wanted) && wanted !== studio.tabNow()) { studio.show(wanted); studio.setParam("run", run); }
  }, 30);
})();
