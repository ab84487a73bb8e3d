import { Command } from 'commander';
import { ZoetropeError } from '../errors';
import { type ByteSource, type Folder, hashPiece, MANIFEST_FILE, type ManifestFile } from '../manifest';
import { diskFolder } from './files';
import { statedBy } from './stated';

/** A piece that is not as the manifest says. */
export interface BadPiece {
  path: string;
  /** From 1. */
  piece: number;
  why: string;
}

async function badPieces(folder: Folder, { path, sizeBytes, pieces }: ManifestFile): Promise<BadPiece[]> {
  let file: ByteSource;
  try {
    file = await folder.open(path);
  } catch (error) {
    if (error instanceof ZoetropeError) return [{ path, piece: 1, why: error.message }];
    throw error;
  }
  const bad: BadPiece[] = [];
  if (file.sizeBytes !== sizeBytes) {
    bad.push({ path, piece: pieces.length, why: `the file has ${file.sizeBytes} bytes, ${sizeBytes} are stated` });
  }
  let begin = 0;
  for (const [index, piece] of pieces.entries()) {
    const end = begin + piece.sizeBytes;
    if (end > file.sizeBytes) {
      bad.push({ path, piece: index + 1, why: 'it is cut off' });
    } else if ((await hashPiece(await file.read(begin, end))) !== piece.sha256) {
      bad.push({ path, piece: index + 1, why: 'its SHA-256 is another' });
    }
    begin = end;
  }
  return bad;
}

/**
 * Reads every piece of the folder of a model or of an optional part, one at a time, and compares it with the manifest.
 * Throws what a bad manifest throws.
 */
export async function verifyModel(folder: Folder): Promise<{ files: number; bytes: number; bad: BadPiece[] }> {
  const stated = await statedBy(folder);
  const files = 'part' in stated ? stated.part.files : Object.values(stated.model.components).flat();
  const bad: BadPiece[] = [];
  for (const file of files) bad.push(...(await badPieces(folder, file)));
  return { files: files.length, bytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0), bad };
}

/** The `verify` command. Its action rejects with `corrupt-data` when a piece is not as stated. */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('Check every byte of a folder that an import has written against its manifest')
    .argument('<folder>', 'folder of a model or of an interpolator')
    .action(async (path: string) => {
      const { files, bytes, bad } = await verifyModel(diskFolder(path));
      for (const { path: file, piece, why } of bad) console.error(`${file}: piece ${piece}: ${why}`);
      if (bad.length > 0) {
        throw new ZoetropeError(
          'corrupt-data',
          `${path} has ${bad.length} pieces that are not as ${MANIFEST_FILE} says. Import or download the model again.`,
        );
      }
      console.log(`${path}: ${files} files, ${(bytes / 2 ** 20).toFixed(1)} MiB, all as ${MANIFEST_FILE} says`);
    });
}
