import { afterEach, expect, it, vi } from 'vitest';
import { addressOf } from '../../src/client/address';
import { urlSource } from '../../src/import/url';
import { folderUrl } from '../../src/store/download';

afterEach(() => vi.unstubAllGlobals());

it('an address is relative to the page, and what is none is refused by those who read it', async () => {
  vi.stubGlobal('document', { baseURI: 'https://x.test/app/' });
  expect(addressOf('models/m/')).toBe('https://x.test/app/models/m/');
  expect(addressOf(new URL('https://y.test/m'))).toBe('https://y.test/m');
  for (const none of ['http://', 'https://:0:0/']) {
    expect(() => folderUrl(addressOf(none))).toThrow(expect.objectContaining({ code: 'unreadable-source' }));
    await expect(urlSource(addressOf(none))).rejects.toMatchObject({ code: 'bad-request' });
  }
});
