/* Who is told when a run ends: a small dialog for a webhook and an e-mail address. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  const line = (name, label, value, more = "") => `<label class="st-line">${esc(t(label))}<input name="${name}" value="${esc(value ?? "")}" ${more}></label>`;

  function form(held, typed, error) {
    const now = { ...held, webhook: "", ...typed };
    return `<p class="st-muted">${esc(t("notify.help"))}</p>
      ${line("webhook", "notify.webhook", now.webhook, `type="url" maxlength="2000" autocomplete="off" placeholder="${esc(held.webhook || "https://")}"`)}
      ${held.webhook ? `<label class="st-check"><input type="checkbox" name="forget" ${typed?.forget ? "checked" : ""}> ${esc(t("notify.forget", { host: held.webhook }))}</label>` : ""}
      ${held.mail ? `${line("to", "notify.to", now.to, 'type="email" maxlength="200"')}
      <div class="st-two">${line("host", "notify.host", now.host, 'maxlength="200" placeholder="smtp.example.org"')}${line("port", "notify.port", now.port, 'type="number" min="1" max="65535"')}</div>
      ${line("user", "notify.user", now.user, 'maxlength="200" autocomplete="off"')}
      <label class="st-check"><input type="checkbox" name="starttls" ${now.starttls ? "checked" : ""}> ${esc(t("notify.starttls"))}</label>
      <p class="st-note">${esc(t(held.password ? "notify.password.there" : "notify.password"))}</p>` : `<p class="st-note">${esc(t("notify.space"))}</p>`}
      <button type="button" class="st-btn st-small" data-test>${esc(t("notify.test"))}</button><p role="status" class="st-note" data-said>${error ? `<b>${esc(error.message)}</b> ${esc(error.hint || "")}` : ""}</p>`;
  }

  /** What was typed, as the settings take it: a webhook left empty stays as it is. */
  function wanted(held, typed) {
    const values = held.mail ? { to: typed.to, host: typed.host, port: typed.port, user: typed.user, starttls: "starttls" in typed } : {};
    if (typed.webhook) values.webhook = typed.webhook;
    else if ("forget" in typed) values.webhook = "";
    return values;
  }

  async function open() {
    let held, typed = null, error = null;
    try { held = await studio.call("notify_settings"); } catch (why) { return studio.failed(why); }
    for (;;) { // what was typed stays until it is taken
      const done = studio.ask(t("notify.title"), form(held, typed, error), t("notify.save"));
      const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1), said = dialog.querySelector("[data-said]"), button = dialog.querySelector("[data-test]");
      button.onclick = async () => {
        const now = Object.fromEntries(new FormData(dialog.querySelector("form")));
        button.disabled = true;
        said.textContent = t("notify.sending");
        try {
          held = await studio.call("notify_save", { values: wanted(held, now) });
          const { sent } = await studio.call("notify_test");
          said.textContent = t("notify.sent", { ways: sent.map((way) => t(`notify.way.${way}`)).join(", ") });
        } catch (why) { said.innerHTML = `<b>${esc(why.message)}</b> ${esc(why.hint || "")}`; }
        button.disabled = false;
      };
      typed = await done;
      if (!typed) return;
      try {
        await studio.call("notify_save", { values: wanted(held, typed) });
        return studio.toast(t("notify.saved"));
      } catch (why) { error = why; typed.starttls = "starttls" in typed; }
    }
  }

  studio.parts.notify = ({ root }) => {
    root.innerHTML = `<button type="button" class="st-btn st-small">${esc(t("notify.open"))}</button>`;
    root.querySelector("button").onclick = open;
  };
})();
