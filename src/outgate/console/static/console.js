"use strict";
// Everything here adds to pages that work without it.

const FRAGMENT = { "x-outgate-fragment": "1" };

/** The editor: what was typed is checked, and what it would change shown, by the server, a moment after each change. */
function startEditor(form) {
  const state = document.getElementById("live-state");
  const preview = document.getElementById("preview");
  const QUIET_MS = 500;
  let timer = 0;
  let asked = null;
  let isStale = false;

  function takeOver(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement && document.activeElement.id;
    for (const part of fresh.querySelectorAll("[data-swap]")) {
      const place = document.getElementById(part.id);
      if (!place || place.innerHTML.trim() === part.innerHTML.trim()) continue;
      place.replaceChildren(...part.childNodes);
      const field = part.id.replace(/^problems-/, "");
      for (const control of form.querySelectorAll(`[name="${field}"]:not([type="radio"])`)) {
        if (place.querySelector(".problem")) control.setAttribute("aria-invalid", "true");
        else control.removeAttribute("aria-invalid");
      }
    }
    for (const place of document.querySelectorAll(".problems")) {
      if (!place.querySelector(".problem")) place.replaceChildren();
    }
    if (focused && document.activeElement.id !== focused) document.getElementById(focused)?.focus();
  }

  async function look() {
    clearTimeout(timer);
    asked?.abort();
    const own = (asked = new AbortController());
    const fields = new URLSearchParams(new FormData(form));
    fields.delete("previewed");
    fields.set("action", "preview");
    state.textContent = "Checking …";
    try {
      const answer = await fetch(location.pathname, { method: "POST", body: fields, headers: FRAGMENT, signal: own.signal });
      if (answer.status === 401) {
        state.textContent = "You are signed out: sign in again in another tab, then go on here.";
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      takeOver(await answer.text());
      isStale = false;
      state.textContent = form.querySelector(".problem") ? "Something has to be put right." : "Checked.";
    } catch (error) {
      if (error.name === "AbortError") return;
      state.textContent = "The server does not answer; press the button to try again.";
    }
    preview.removeAttribute("aria-busy");
  }

  form.addEventListener("input", () => {
    isStale = true;
    preview.setAttribute("aria-busy", "true");
    clearTimeout(timer);
    timer = setTimeout(look, QUIET_MS);
  });
  form.addEventListener("submit", (event) => {
    if (!event.submitter || event.submitter.value === "preview") {
      event.preventDefault();
      if (form.reportValidity()) look();
    } else if (isStale) {
      // What would be saved was not shown yet: first it is.
      event.preventDefault();
      look();
    }
  });
  if (form.elements.name.value && !form.querySelector("#save")) look();
}

/** The table of flows: new records come on top, unless it is paused. */
function startFlows(table) {
  const KEPT_MAX = 500;
  const RETRY_MS = [1000, 2000, 5000, 10000, 30000];
  const body = table.tBodies[0];
  const state = document.getElementById("live-state");
  const pause = document.getElementById("pause");
  const waiting = [];
  let last = Number(table.dataset.last);
  let source = null;
  let failures = 0;
  let isPaused = false;

  function say(text, kind) {
    if (state.textContent !== text) state.textContent = text;
    state.className = `state ${kind}`;
  }

  function show(row) {
    if (body.querySelector(`[data-number="${row.dataset.number}"]`)) return;
    row.classList.add("fresh");
    body.prepend(row);
    while (body.rows.length > KEPT_MAX) body.lastElementChild.remove();
    document.getElementById("no-flows").hidden = true;
  }

  function take(event) {
    const { number, html } = JSON.parse(event.data);
    if (number === undefined || number <= last) return;
    last = number;
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const row = holder.content.querySelector("tr");
    if (isPaused) {
      waiting.push(row);
      waiting.splice(0, waiting.length - KEPT_MAX);
      pause.textContent = `Go on (${waiting.length} new)`;
    } else show(row);
  }

  function open() {
    source = new EventSource(`${table.dataset.stream}&after=${last}`);
    source.addEventListener("open", () => {
      failures = 0;
      say("Live", "ok");
    });
    source.addEventListener("message", take);
    source.addEventListener("error", () => {
      // By itself it would begin again where it began first.
      source.close();
      say("Connecting again …", "warn");
      setTimeout(open, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
    });
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) for (const row of waiting.splice(0)) show(row);
    pause.textContent = isPaused ? "Go on" : "Pause";
  });
  window.addEventListener("pagehide", () => source?.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
}

const editor = document.querySelector("form[data-live]");
if (editor) startEditor(editor);
const flows = document.querySelector("table[data-stream]");
if (flows) startFlows(flows);
