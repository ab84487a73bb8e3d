/** An address as the page means it, whole. What is none comes back as it is, for the worker to refuse by name. */
export function addressOf(url: string | URL): string {
  return URL.canParse(url, document.baseURI) ? new URL(url, document.baseURI).href : String(url);
}
