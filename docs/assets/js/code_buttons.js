// Material wraps each code block's copy button in an unnamed <nav>. A page full of landmarks
// that lead nowhere hides the real ones from screen readers, so these stop being landmarks.
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])"))
    nav.setAttribute("role", "presentation");
}).observe(document.body, { childList: true, subtree: true });
