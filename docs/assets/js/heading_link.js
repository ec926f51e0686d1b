// The # beside a heading copies its permanent address; with Shift, a Markdown link with its title.
{
  const base = () =>
    document.querySelector("link[rel=canonical]")?.href ?? location.href.replace(/#.*/, "");

  const title = (heading) => {
    const own = heading.cloneNode(true);
    own.querySelectorAll(".headerlink").forEach((link) => link.remove());
    return own.textContent.trim();
  };

  const page = () => title(document.querySelector("article h1"));

  const named = (heading) =>
    heading.tagName === "H1" ? page() : `${page()} › ${title(heading)}`;

  const markdown = (heading, address) =>
    `[${named(heading).replace(/[[\]\\]/g, "\\$&")}](${address})`;

  const copied = async (link, asMarkdown) => {
    const heading = link.closest("h1, h2, h3, h4, h5, h6");
    const address = base() + link.hash;
    await navigator.clipboard.writeText(asMarkdown ? markdown(heading, address) : address);
    return asMarkdown ? "見出しへのリンクをMarkdownでコピーしました" : "見出しのURLをコピーしました";
  };

  const tell = (message) => window.alert$?.next(message);

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.headerlink");
    if (!link) return;
    if (event.shiftKey) event.preventDefault();
    copied(link, event.shiftKey).then(tell, () => tell("ブラウザーが、コピーを許しませんでした"));
  });
}
