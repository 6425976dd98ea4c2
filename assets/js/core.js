/* Shared by every part of the page: words, numbers, theme, the bus between tabs, polling that rests when not seen. */
(() => {
  "use strict";
  const data = window.STUDIO || { strings: { en: {} }, tabs: [] };
  const english = data.strings.en || {};
  const words = data.strings[(navigator.language || "en").split("-")[0]] || english;
  const studio = (window.studio = { bus: null });

  /** Text of a key with {name} places filled in. */
  studio.t = (key, values = {}) =>
    (words[key] ?? english[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

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

  /* The bus: handlers registered in Python with Shell.on_open. Calls made before the page is ready wait. */
  const waiting = [];
  studio.flush = () => { for (const [name, detail] of waiting.splice(0)) studio.bus(name, detail); };
  studio.send = (name, detail = {}) => (studio.bus ? studio.bus(name, detail) : waiting.push([name, detail]));

  /** Show a tab without telling its Python side anything. */
  studio.show = (tab) => document.getElementById(`tab-${tab}-button`)?.click();

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

  /* Tab in the address: ?tab=runs opens there. */
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[role=tab]");
    const name = button?.id.match(/^tab-(.+)-button$/)?.[1];
    if (name) studio.setParam("tab", name);
  });
})();
