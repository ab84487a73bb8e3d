import { type PlanReport, type Request, type Zoetrope, ZoetropeError } from '../index';
import { element, setText } from './element';
import type { FormValues } from './fields';

/** What the request on the form would take, told before the button is pressed. */
export interface PlanView {
  readonly root: HTMLElement;
  /** Asks for the plan of a request and shows it; the newest question wins. */
  show(zoetrope: Pick<Zoetrope, 'plan'>, request: Request): void;
}

/** How long the form has to rest before it is asked about. */
const REST_MS = 250;

/** @param onUse takes over the fields of the nearest request that fits. */
export function createPlanView(onUse: (fields: FormValues) => void): PlanView {
  const summary = element('p', { role: 'status' });
  const use = element('button', { type: 'button', hidden: true }, 'Use what fits');
  const text = element('pre');
  const details = element('details', {}, element('summary', {}, 'Memory and time'), text);
  const root = element('div', { class: 'plan', hidden: true }, summary, use, details);
  let asked = 0;

  const fill = (report: PlanReport): void => {
    const { fits, refused } = report;
    setText(summary, report.summary.replace(/^f/, 'F'));
    summary.className = fits ? 'hint' : 'problem';
    setText(text, report.explanation);
    details.hidden = !fits;
    const nearest = refused?.nearest;
    use.hidden = !nearest;
    use.onclick = () => nearest && onUse(nearest);
    root.hidden = false;
  };
  return {
    root,
    show(zoetrope, request) {
      const question = ++asked;
      setTimeout(async () => {
        if (question !== asked) return;
        try {
          const report = await zoetrope.plan(request);
          if (question === asked) fill(report);
        } catch (error) {
          // What is wrong with a request is said when it is sent; an engine that has died says so itself.
          if (!(error instanceof ZoetropeError)) throw error;
          if (question === asked) root.hidden = true;
        }
      }, REST_MS);
    },
  };
}
