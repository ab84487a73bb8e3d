/** What an element may be given: attributes, and listeners under `on…` names. `false` and `undefined` leave one out. */
export type Attributes = Record<string, string | number | boolean | undefined | ((event: Event) => void)>;

/** A child: a node, text (never markup), or nothing. */
export type Child = Node | string | undefined;

/** Makes an element. Text goes in as text nodes, so nothing that a person or a model folder says can become markup. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(name.slice('on'.length), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : String(value));
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/**
 * Writes `text` only when it differs, so that a live region does not speak twice and layout is not asked for nothing.
 */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * Whether a click is the second of a double one, which means the first and says nothing new. Keys give no such clicks.
 */
export function isDouble(event: Event): boolean {
  return (event as UIEvent).detail > 1;
}

/** The person's wish for less movement, read each time because it can change while the page is open. */
export function prefersReducedMotion(): boolean {
  return matchMedia('(prefers-reduced-motion: reduce)').matches;
}
