// Runs beside the official client: JSON calls on standard input, JSON outcomes on standard output.
const { readFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { join } = require('node:path');

const installed = createRequire(join(process.argv[2], 'package.json'));
const VoximplantApiClient = installed('@voximplant/apiclient-nodejs').default;

const program = JSON.parse(readFileSync(0, 'utf8'));
const client = new VoximplantApiClient({ pathToCredentials: program.credentials, host: program.endpoint });
client.onReady = async () => {
    const outcomes = [];
    for (const [method, args] of program.calls) {
        try {
            const target = method === 'makeRequest' ? client : client.KeyValueStorage;
            outcomes.push({ returned: await target[method](...args) });
        } catch (error) {
            outcomes.push({ raised: String(error) });
        }
    }
    process.stdout.write(JSON.stringify(outcomes));
};
