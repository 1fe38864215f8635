// A box that scrolls must be reachable by keyboard: made so after the equations are typeset.
"use strict";
(function () {
  const BOXES = ".math, pre, .table-wrapper, .sidebar-scroll, .toc-scroll";
  function reach() {
    for (const box of document.querySelectorAll(BOXES)) {
      if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) {
        box.setAttribute("tabindex", "0");
      }
    }
  }
  // Furo has two asides; each needs a name of its own.
  const NAMES = { ".sidebar-drawer": "Pages", ".toc-drawer": "On this page" };
  window.addEventListener("load", function () {
    for (const [selector, name] of Object.entries(NAMES)) {
      const aside = document.querySelector(selector);
      if (aside) aside.setAttribute("aria-label", name);
    }
    // The search page has no heading of its own.
    const article = document.querySelector("article");
    if (article && !document.querySelector("h1")) {
      const heading = document.createElement("h1");
      heading.textContent = "Search";
      article.prepend(heading);
    }
    reach();
    const mathjax = window.MathJax;
    if (mathjax && mathjax.startup && mathjax.startup.promise) {
      mathjax.startup.promise.then(function () {
        reach();
        document.documentElement.dataset.typeset = "yes";
      });
    } else {
      document.documentElement.dataset.typeset = "yes";
    }
  });
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);
})();
