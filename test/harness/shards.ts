import { safetensors, type TestTensor } from './checkpoint';

/** A safetensors file cut into shards, as large checkpoints are saved: files and their index by name. */
export function shardFile(file: Uint8Array, stem: string, count: number): Map<string, Uint8Array> {
  const headerBytes = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + headerBytes))) as Record<
    string,
    { dtype: NonNullable<TestTensor['dtype']>; shape: number[]; data_offsets: [number, number] }
  >;
  const shards = Array.from({ length: count }, () => new Map<string, TestTensor>());
  const map: Record<string, string> = {};
  const nameOf = (index: number) => `${stem}-0000${index + 1}-of-0000${count}.safetensors`;
  const entries = Object.entries(header).filter(([name]) => name !== '__metadata__');
  for (const [i, [name, { dtype, shape, data_offsets }]] of entries.entries()) {
    const [begin, end] = data_offsets.map((offset) => 8 + headerBytes + offset) as [number, number];
    const index = i % count;
    shards[index]!.set(name, { dtype, shape, values: file.slice(begin, end) });
    map[name] = nameOf(index);
  }
  const index = new TextEncoder().encode(JSON.stringify({ metadata: {}, weight_map: map }));
  return new Map([
    ...shards.map((tensors, i): [string, Uint8Array] => [nameOf(i), safetensors(tensors)]),
    [`${stem}.safetensors.index.json`, index],
  ]);
}
