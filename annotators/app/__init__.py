"""The annotation app: click landmarks of the robot in the browser, see the robot follow. Entry: `annotators.app.main.run_app`."""
