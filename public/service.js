// Loads Zoetrope's service worker. This file lies at the root of the site, since a service worker sees only the folder it lies in;
// the script itself has a name with a hash and comes in the address.
const script = new URL(new URL(location.href).searchParams.get('script'), location.href);
if (script.origin !== location.origin) throw new Error(`The service worker's script is of another site: ${script}`);
importScripts(script.href);
