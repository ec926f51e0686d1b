// Draw each job { part, title, description } as a picture and hand the pictures back as PNG.
const [WIDTH, HEIGHT, EDGE] = [1200, 630, 88];
const FONTS = '"Noto Sans CJK JP", "Hiragino Sans", sans-serif';
const COLOURS = { paper: "#fdfcf9", ink: "#1f2629", muted: "#56616a", teal: "#0f5765" };
const words = new Intl.Segmenter("ja", { granularity: "word" });
const CLOSING = /^[、。，．）」』】〕ー…・:]/;

const pieces = (text) =>
  [...words.segment(text)].reduce((all, { segment }) => {
    if (all.length && CLOSING.test(segment)) all[all.length - 1] += segment;
    else all.push(segment);
    return all;
  }, []);

const lines = (brush, text, width) => {
  const found = [""];
  const fits = (words) => brush.measureText(words).width <= width;
  for (const piece of pieces(text).flatMap((one) => (fits(one) ? [one] : [...one]))) {
    const longer = found.at(-1) + piece;
    if (fits(longer) || !found.at(-1)) found[found.length - 1] = longer;
    else found.push(piece.trimStart());
  }
  return found;
};

const write = (brush, text, { weight, size, colour, top, most }) => {
  brush.font = `${weight} ${size}px ${FONTS}`;
  brush.fillStyle = colour;
  const all = lines(brush, text, WIDTH - 2 * EDGE);
  const shown = all.slice(0, most);
  if (all.length > most) shown[most - 1] = `${shown[most - 1].slice(0, -1)}…`;
  shown.forEach((line, at) => brush.fillText(line, EDGE, top + at * size * 1.45));
  return top + shown.length * size * 1.45;
};

const draw = (logo, { site, part, title, description }) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
  const brush = canvas.getContext("2d");
  brush.textBaseline = "top";
  brush.fillStyle = COLOURS.paper;
  brush.fillRect(0, 0, WIDTH, HEIGHT);
  brush.fillStyle = COLOURS.teal;
  brush.fillRect(0, 0, 20, HEIGHT);
  brush.drawImage(logo, EDGE, 64, 64, 64);
  brush.font = `700 34px ${FONTS}`;
  brush.fillText(part ? `${site}　${part}` : site, EDGE + 88, 76);
  const below = write(brush, title, { weight: 700, size: 68, colour: COLOURS.ink, top: 200, most: 2 });
  const small = { weight: 400, size: 32, colour: COLOURS.muted, most: 3 };
  write(brush, description, { ...small, top: below + 36 });
  return canvas.toDataURL("image/png").split(",")[1];
};

const { logo, jobs } = JSON.parse(document.getElementById("jobs").textContent);
const image = new Image();
image.src = logo;
await image.decode();
await document.fonts.ready;
document.getElementById("drawn").textContent = JSON.stringify(jobs.map((job) => draw(image, job)));
