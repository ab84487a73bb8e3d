import { describe, expect, it } from 'vitest';
import { browserArguments, findBrowser, usualPaths } from '../../src/cli/browser';

describe('usualPaths', () => {
  it('looks along PATH and in the usual folders on Linux, Chrome first', () => {
    const paths = usualPaths('linux', { PATH: '/opt/bin:relative:/usr/bin' });
    expect(paths.slice(0, 3)).toEqual(['/opt/bin/google-chrome', '/usr/bin/google-chrome', '/snap/bin/google-chrome']);
    expect(paths).toContain('/usr/bin/chromium');
    expect(new Set(paths).size).toBe(paths.length);
    expect(usualPaths('linux', {})).toContain('/usr/bin/chromium');
  });

  it('looks in the application folders elsewhere', () => {
    expect(usualPaths('darwin', { HOME: '/Users/x' })).toContain(
      '/Users/x/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
    );
    expect(usualPaths('win32', { PROGRAMFILES: 'C:\\Program Files' })).toEqual([
      'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
      'C:\\Program Files\\Microsoft\\Edge\\Application\\msedge.exe',
    ]);
  });
});

describe('browserArguments', () => {
  it('turn WebGPU on everywhere and Vulkan on Linux', () => {
    expect(browserArguments('linux')).toEqual(
      expect.arrayContaining(['--enable-unsafe-webgpu', '--enable-features=Vulkan']),
    );
    expect(browserArguments('darwin')).toContain('--enable-unsafe-webgpu');
    expect(browserArguments('darwin')).not.toContain('--enable-features=Vulkan');
  });
});

describe('findBrowser', () => {
  it('refuses a CHROME_PATH that is no program', async () => {
    const before = process.env.CHROME_PATH;
    process.env.CHROME_PATH = '/nowhere/chrome';
    try {
      await expect(findBrowser()).rejects.toMatchObject({
        code: 'unsupported-device',
        message: expect.stringContaining('/nowhere/chrome'),
      });
    } finally {
      if (before === undefined) delete process.env.CHROME_PATH;
      else process.env.CHROME_PATH = before;
    }
  });
});
