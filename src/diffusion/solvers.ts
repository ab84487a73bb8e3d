import { dpmpp } from './dpmpp';
import { euler } from './euler';
import type { SolverName } from './schedule';
import type { Solver } from './solver';
import { unipc } from './unipc';

/** The method that goes with each table of noise levels. */
export const SOLVERS: Readonly<Record<SolverName, Solver>> = {
  unipc,
  'unipc-old': unipc,
  'unipc-official': unipc,
  'dpmpp-official': dpmpp,
  euler,
};
