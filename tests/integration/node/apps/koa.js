// SPDX-License-Identifier: MIT
const Koa = require('koa');

const app = new Koa();

app.use(ctx => {
        ctx.body = { pid: process.pid };
});
app.listen(3000);
