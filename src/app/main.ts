import './base.css';
import './form.css';
import './stage.css';
import { load, models, serveFal } from '../index';
import { startPage } from './page';

declare global {
  /**
   * The library, for scripts that drive this page: `await zoetrope.load({ model: '/models/demo/' })`. With `?idle` in
   * the address the page opens no model of its own, so that the script's is the only one on the GPU. `?model=<url>`
   * names the folder that the page opens; default `models/demo/` beside the page.
   */
  var zoetrope: { load: typeof load; models: typeof models; serveFal: typeof serveFal };
}

globalThis.zoetrope = { load, models, serveFal };

const address = new URLSearchParams(location.search);
startPage(document.getElementById('page')!, {
  model: address.get('model') || 'models/demo/',
  idle: address.has('idle'),
});
