/* SPDX-License-Identifier: MIT */
#pragma once

/* MESSAGE_ID= of every journal entry that an admin may want to search for. src/master/muster.catalog
 * explains each of them (journalctl -x); a lint test holds the two together. */

#define MESSAGE_ID_MASTER_READY    "96eb0ee8301e4afdb86a2bfda92d356a"
#define MESSAGE_ID_MASTER_STOPPING "4762577435d34403b865d12241e9715c"
#define MESSAGE_ID_START_FAILED    "168bbe6965d64fada4b7ffff2b29f52c"
#define MESSAGE_ID_WORKER_READY    "043d9b39763c45bb93be7bdf93215b02"
#define MESSAGE_ID_WORKER_EXITED   "c84ee13b919b4c8e9b8e2c0575472b87"
#define MESSAGE_ID_WORKER_BACKOFF  "f849e5ebfde842eebc2f6751a36f293e"
#define MESSAGE_ID_CONFIG_INVALID  "bacd37a1b2264056b1b84a378682abd1"
#define MESSAGE_ID_RELOADED        "5c3a8389699842629ec0d942a1f4b718"
#define MESSAGE_ID_RELOAD_FAILED   "d20e70d40a214efaa5252a5cfe3263bb"
#define MESSAGE_ID_WORKER_KILLED   "e93621ad21d847049fe7293428397f00"
#define MESSAGE_ID_LEFT_BEHIND     "e1432ee4270b40eeb35e7e878b46c6ef"
