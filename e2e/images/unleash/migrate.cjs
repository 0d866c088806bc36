// Migrates the database and exits: 0 when it is migrated, 1 when not. The server's own exit code
// does not tell, for version 8 exits 0 when it cannot reach its database.
(async () => {
  const dist = '/app/node_modules/unleash-server/dist';
  const { migrateDb } = await import(`${dist}/migrator.js`);
  const { createConfig } = await import(`${dist}/lib/create-config.js`);
  await migrateDb(createConfig({}));
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
