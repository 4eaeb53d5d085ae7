// Keeps what the page says of jobs up to date while one is under way: pieces of HTML, as the server made them at first, are asked for
// anew and put in place. Without it the page has links for that.
"use strict";

const EVERY = 2000; // milliseconds: 30 questions of the 120 a minute that a session has
const LATER = 10; // seconds, after an answer that is none

const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));

// Make one node like another. What is the same stays, so that focus, selection and scrolling do, and screen readers hear only changes.
function liken(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  likenAll(old, fresh);
}

function likenAll(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  before.slice(after.length).forEach(node => node.remove());
  after.forEach((node, i) => (i < before.length ? liken(before[i], node) : old.append(node)));
}

function show(part, text) {
  const fresh = new DOMParser().parseFromString(text, "text/html").body;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const log = part.querySelector("[data-tail]");
  const atEnd = !log || log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  likenAll(part, fresh);
  const now = part.querySelector("[data-tail]");
  if (now && atEnd) now.scrollTop = now.scrollHeight;
  if (focused && !focused.isConnected)
    (document.getElementById(focused.id) ?? document.getElementById(part.dataset.heading ?? "main"))?.focus();
}

async function follow(part) {
  while (part.querySelector("[data-under-way]")) {
    await pause(EVERY);
    if (document.hidden) continue;
    let answer = null;
    try {
      answer = await fetch(part.dataset.live, { redirect: "error" });
      if (answer.ok) show(part, await answer.text());
    } catch {
      answer = null; // the service is away for a moment, or for good: the page says what it knew last
    }
    if (answer && [401, 403, 404].includes(answer.status)) {
      const { detail } = await answer.json();
      part.querySelector("[role=status]").textContent = `${detail}.`;
      return;
    }
    if (!answer?.ok) await pause(1000 * (Number(answer?.headers.get("Retry-After")) || LATER));
  }
}

for (const log of document.querySelectorAll("[data-tail]")) log.scrollTop = log.scrollHeight;
for (const part of document.querySelectorAll("[data-live]")) follow(part);
