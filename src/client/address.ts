/**
 * An address as the page means it, whole. What is none comes back as it is, for the worker to refuse by name.
 * @param base default: the page's.
 */
export function addressOf(url: string | URL, base = document.baseURI): string {
  return URL.canParse(url, base) ? new URL(url, base).href : String(url);
}
