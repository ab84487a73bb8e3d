import type { ImportSource } from '../checkpoint/sources';
import { ZoetropeError } from '../errors';
import { httpFile, httpFolder } from '../store/http';

/** Whether a path is an address on the web. */
export function isUrl(path: string): boolean {
  return /^https?:\/\//i.test(path);
}

/**
 * A source on a web server. A path that ends with a slash, or with neither an ending nor a query, is a folder; everything else is a
 * file. A query, such as `?download=true` or a signature, is sent with every request; the source's path, which messages show and whose words
 * tell the expert, is without it. Throws `bad-request` for other addresses and `unreadable-source` for a file that is not there.
 */
export async function urlSource(url: string): Promise<ImportSource> {
  if (!isUrl(url) || !URL.canParse(url)) {
    throw new ZoetropeError(
      'bad-request',
      `A source on the web has an http or https address, got ${JSON.stringify(url)}.`,
    );
  }
  const { origin, pathname, search } = new URL(url);
  const path = origin + pathname;
  const isFolder = pathname.endsWith('/') || (search === '' && !/\.[a-z0-9]+$/i.test(pathname));
  // A checkpoint has no hashes, so half of one file and half of another must not become a model.
  const options = { unchanged: true };
  return isFolder
    ? { path, folder: httpFolder(path + search, options) }
    : { path, file: await httpFile(path + search, options) };
}
