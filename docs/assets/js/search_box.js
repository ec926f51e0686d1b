// Material searches on keyup alone. A candidate chosen with the mouse, dictation and paste
// change the box without a key; and Enter that confirms a conversion must open nothing.
{
  const box = document.querySelector("[data-md-component=search-query]");
  const search = () => box.dispatchEvent(new KeyboardEvent("keyup"));
  box?.addEventListener("input", search);
  box?.addEventListener("compositionend", search);
  const confirms = (event) => event.isComposing || event.keyCode === 229;
  addEventListener("keydown", (event) => confirms(event) && event.stopImmediatePropagation(), true);
}
