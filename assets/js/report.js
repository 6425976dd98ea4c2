/* Reports: the dialog that writes one, and a finished one in a frame that can run and load nothing. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  /** Ask which runs a report tells of, then write it. */
  studio.reportRuns = async (runs = []) => {
    const answer = await studio.insight.ask(t("is.report.title"), t("is.report.about"), t("is.report.go"), { parts: ["evaluation", "analysis", "making", "sweep"], held: runs },
      `<label class="st-line">${esc(t("is.report.name"))}<input type="text" name="title" maxlength="120" placeholder="${esc(t("is.report.name.hint"))}"></label><label class="st-line">${esc(t("is.report.notes"))}<textarea name="notes" rows="3" maxlength="20000" placeholder="${esc(t("is.report.notes.hint"))}"></textarea></label>`);
    if (!answer) return;
    try {
      const run = await studio.call("submit", { values: { kind: "eval", method: "report", runs: answer.runs, title: answer.title.trim(), notes: answer.notes, name: answer.title.trim() ? studio.insight.named("is.report.run", { name: answer.title.trim() }) : "" } });
      window.dispatchEvent(new CustomEvent("studio:runs"));
      studio.evalOpen(run.id);
    } catch (error) { studio.failed(error); }
  };

  studio.evalPanel("eval/report", (place, { run }) => {
    place.className = "is is-report";
    place.innerHTML = `<div class="st-working">${esc(t("is.working"))}</div>`;
    (async () => {
      const found = await studio.call("report", { run: run.id }), page = found.files.find((file) => file.name.endsWith(".html"));
      if (!place.isConnected) return;
      place.innerHTML = `<header class="ev-part-head"><h2>${esc(found.title)}</h2>${found.pages ? `<span class="st-muted">${esc(t("is.report.pages", { n: found.pages }))}</span>` : ""}<div class="ev-tools">${page ? `<button type="button" class="st-btn st-small" data-full>${esc(t("is.report.open"))}</button>` : ""}${found.files.map((file) => `<a class="st-btn st-small" href="${esc(file.url)}" download="${esc(file.name)}">${esc(t("is.report.download", { name: file.name, size: studio.bytes(file.size) }))}</a>`).join("")}</div></header>
        ${page ? "" : `<p class="st-muted">${esc(t("is.report.missing"))}</p>`}`;
      if (!page) return;
      // no scripts, no origin: even if markup of a model got through, it could do nothing here
      const frame = Object.assign(document.createElement("iframe"), { title: t("is.report.frame"), srcdoc: await (await fetch(page.url)).text() });
      frame.setAttribute("sandbox", "");
      frame.style.colorScheme = studio.dark() ? "dark" : "light";
      place.append(frame);
      place.querySelector("[data-full]").onclick = () => frame.requestFullscreen?.();
    })().catch((error) => { place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; });
  });
})();
